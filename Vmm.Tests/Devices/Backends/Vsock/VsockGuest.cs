using System.Net.Sockets;
using NUnit.Framework;
using Vmm.Devices.Backends.Vsock;
using Vmm.Tests.Fakes;

namespace Vmm.Tests.Devices.Backends.Vsock;

/// <summary>A switch, and a guest that says and hears packets: by itself it has no manners at all.</summary>
internal sealed class VsockGuest : IDisposable
{
    public const uint Cid = 7;

    private readonly string _directory = Directory.CreateTempSubdirectory("vmm-test-").FullName;
    private readonly List<IDisposable> _open = [];
    private readonly VsockPacket _packet = new();

    /// <summary>A guest that has as long to answer as its test takes, or as it is given.</summary>
    public VsockGuest(TimeSpan? patience = null, bool connects = true) => Switch = new VsockSwitch(Path, Cid, patience ?? TimeSpan.FromHours(1), connects);

    public VsockSwitch Switch { get; }

    public string Path => System.IO.Path.Combine(_directory, "vsock");

    /// <summary>The room that the guest says it has, and how much it has taken out of it.</summary>
    public uint Room { get; set; } = 1 << 20;

    public uint Forwarded { get; set; }

    public void Send(VsockOperation operation, uint guestPort, uint hostPort, ReadOnlySpan<byte> data = default, VsockShutdown flags = 0)
    {
        var header = new VsockHeader
        {
            SourceCid = Cid,
            DestinationCid = VsockSwitch.HostCid,
            SourcePort = guestPort,
            DestinationPort = hostPort,
            Length = (uint)data.Length,
            Type = VsockType.Stream,
            Operation = operation,
            Flags = flags,
            BufferAllocation = Room,
            ForwardCount = Forwarded,
        };
        Switch.Receive(header, data);
    }

    /// <summary>The next packet; null if there is none now.</summary>
    public (VsockHeader Header, byte[] Data)? TryReceive()
    {
        if (!Switch.TryMakePacket(_packet))
            return null;
        (VsockHeader, byte[]) packet = (_packet.Header, _packet.Data.ToArray());
        _packet.Clear();
        return packet;
    }

    public (VsockHeader Header, byte[] Data) Receive()
    {
        (VsockHeader, byte[])? packet = null;
        Eventually.True(() => (packet = TryReceive()) is not null, () => "no packet came");
        return packet!.Value;
    }

    public VsockHeader Receive(VsockOperation operation)
    {
        (VsockHeader header, _) = Receive();
        Assert.That(header.Operation, Is.EqualTo(operation));
        Assert.That((header.SourceCid, header.DestinationCid), Is.EqualTo((VsockSwitch.HostCid, (ulong)Cid)));
        return header;
    }

    public void ReceivesNothing() => Assert.That(TryReceive()?.Header, Is.Null);

    /// <summary>Listens where the host's port is.</summary>
    public Socket ListenOn(uint hostPort, int backlog = 16)
    {
        Socket listener = Keep(NewSocket());
        listener.Bind(new UnixDomainSocketEndPoint($"{Path}_{hostPort}"));
        listener.Listen(backlog);
        return listener;
    }

    /// <summary>A connection of the guest's with a program of the host's, whose side is returned.</summary>
    public Socket Connect(uint guestPort = 1000, uint hostPort = 80)
    {
        using Socket listener = ListenOn(hostPort);
        Send(VsockOperation.Request, guestPort, hostPort);
        Socket program = Keep(listener.Accept());
        program.ReceiveTimeout = 10_000;
        Receive(VsockOperation.Response);
        File.Delete($"{Path}_{hostPort}");
        return program;
    }

    /// <summary>A program that connects to the switch.</summary>
    public Socket Dial(string line)
    {
        Socket program = Keep(NewSocket());
        program.ReceiveTimeout = 10_000;
        program.Connect(new UnixDomainSocketEndPoint(Path));
        program.Send(System.Text.Encoding.ASCII.GetBytes(line));
        return program;
    }

    public static byte[] Read(Socket socket, int count)
    {
        byte[] data = new byte[count];
        for (int done = 0; done < count;)
        {
            int read = socket.Receive(data.AsSpan(done));
            Assert.That(read, Is.Positive, "the end came early");
            done += read;
        }
        return data;
    }

    public void Dispose()
    {
        Switch.Dispose();
        foreach (IDisposable open in _open)
            open.Dispose();
        Directory.Delete(_directory, recursive: true);
    }

    private T Keep<T>(T disposable)
        where T : IDisposable
    {
        _open.Add(disposable);
        return disposable;
    }

    private static Socket NewSocket() => new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
}
