using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Tmds.Linux;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Fakes;

/// <summary>A descriptor whose last close(2) waits for half a minute, or until this is disposed of: a TCP connection that is full, with SO_LINGER, whose other end
/// nobody reads.</summary>
internal sealed unsafe class HostileDescriptor : IDisposable
{
    /// <summary>Who closes it waits for longer than this.</summary>
    public static readonly TimeSpan Patience = TimeSpan.FromSeconds(10);

    private readonly Socket _reader;

    public HostileDescriptor()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        var writer = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        writer.Connect((IPEndPoint)listener.LocalEndpoint);
        _reader = listener.AcceptSocket();
        writer.LingerState = new LingerOption(true, 30);
        writer.Blocking = false;
        byte[] data = new byte[1 << 16];
        while (writer.Send(data, SocketFlags.None, out SocketError error) > 0 || error == SocketError.Success)
        {
        }
        File = new FileDescriptor((int)writer.SafeHandle.DangerousGetHandle());
        writer.SafeHandle.SetHandleAsInvalid();
    }

    /// <summary>To be sent, and then to be disposed of before the receiver closes its own.</summary>
    public FileDescriptor File { get; }

    /// <summary>Sends a message with it, and closes it here while the receiver waits for the rest of the message.</summary>
    public void SendWith(UnixSocket socket, ReadOnlySpan<byte> message)
    {
        Send(socket, message[..4], 0, File);
        File.Dispose();
        NUnit.Framework.Assert.That(socket.TrySend(message[4..], []), NUnit.Framework.Is.EqualTo(message.Length - 4));
    }

    /// <summary>Sends bytes with descriptors as no class of ours does: with more of them, or with other flags.</summary>
    public static void Send(UnixSocket socket, ReadOnlySpan<byte> data, int flags, params ReadOnlySpan<FileDescriptor> descriptors)
    {
        int length = descriptors.Length * sizeof(int);
        byte* control = stackalloc byte[sizeof(cmsghdr) + length];
        var header = (cmsghdr*)control;
        header->cmsg_level = LibC.SOL_SOCKET;
        header->cmsg_type = LibC.SCM_RIGHTS;
        header->cmsg_len = sizeof(cmsghdr) + length;
        for (int i = 0; i < descriptors.Length; i++)
            ((int*)(header + 1))[i] = descriptors[i].Number;
        fixed (byte* pointer = data)
        {
            var part = new iovec { iov_base = pointer, iov_len = data.Length };
            var message = new msghdr { msg_iov = &part, msg_iovlen = 1, msg_control = control, msg_controllen = sizeof(cmsghdr) + length };
            // SAFETY: all that the header names is pinned or on the stack.
            long sent = (long)LibC.sendmsg(socket.Number, &message, flags);
            NUnit.Framework.Assert.That(sent, NUnit.Framework.Is.EqualTo(data.Length), Marshal.GetLastPInvokeErrorMessage());
        }
    }

    public void Dispose()
    {
        _reader.Dispose();      // with bytes that were not read: the connection is reset, and nobody waits any more
        File.Dispose();
    }
}
