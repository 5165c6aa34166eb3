using System.Runtime.InteropServices;
using NUnit.Framework;
using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Frontend;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Tests.User.Frontend;

/// <summary>A session whose other end is in the test's hands, byte by byte. Answers are sent before they are asked for: they wait in the socket.</summary>
internal sealed class SessionPeer : IDisposable
{
    private readonly UnixSocket _socket;

    public SessionPeer(VhostUserProtocolFeatures agreed = VhostUserProtocolFeatures.None, TimeSpan? timeout = null)
    {
        (UnixSocket ours, _socket) = UnixSocket.Pair();
        Session = new VhostUserSession(ours, "peer", timeout);
        if (agreed == VhostUserProtocolFeatures.None)
            return;
        Answer(VhostUserRequest.GetFeatures, VirtioFeatures.VhostUserProtocolFeatures);
        Session.GetFeatures();
        Session.SetProtocolFeatures(agreed);
        Receive(out _);
    }

    public VhostUserSession Session { get; }

    /// <summary>The test's end.</summary>
    public UnixSocket Socket => _socket;

    public void Answer(VhostUserRequest request, ulong number) => Answer((uint)request, 5, BitConverter.GetBytes(number));

    public void Answer(uint request, uint flags, byte[] payload, params ReadOnlySpan<FileDescriptor> descriptors) =>
        Send([.. BitConverter.GetBytes(request), .. BitConverter.GetBytes(flags), .. BitConverter.GetBytes(payload.Length), .. payload], descriptors);

    public void Send(byte[] bytes, params ReadOnlySpan<FileDescriptor> descriptors) =>
        Assert.That(_socket.TrySend(bytes, descriptors), Is.EqualTo(bytes.Length));

    /// <summary>All that the session has sent, and how many descriptors came with it.</summary>
    public byte[] Receive(out int descriptors)
    {
        var files = new List<FileDescriptor>();
        byte[] buffer = new byte[16384];
        int length = 0;
        while (_socket.TryReceive(buffer.AsSpan(length), files, out _) is > 0 and int count)
            length += count;
        foreach (FileDescriptor file in files)
            file.Dispose();
        descriptors = files.Count;
        return buffer[..length];
    }

    /// <summary>Whether the session has shut the connection down.</summary>
    public bool HasEnded
    {
        get
        {
            PollEntry[] entries = [new(_socket, PollEvents.None)];
            return Poll.Wait(entries, 0) == 1 && (entries[0].Happened & PollEvents.HangUp) != 0;
        }
    }

    /// <summary>Nothing follows what was sent; what the session sends still arrives.</summary>
    public void CloseForSending() => Assert.That(Tmds.Linux.LibC.shutdown(_socket.Number, Tmds.Linux.LibC.SHUT_WR), Is.Zero);

    public void Dispose()
    {
        Session.Dispose();
        _socket.Dispose();
    }

    public static byte[] Bytes<T>(T value)
        where T : unmanaged => MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in value)).ToArray();
}
