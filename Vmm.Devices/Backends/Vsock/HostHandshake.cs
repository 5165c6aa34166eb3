using System.Buffers.Text;
using System.Text;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Backends.Vsock;

/// <summary>The kind of connection that a program of the host has asked for.</summary>
internal enum HostWish
{
    /// <summary>Its line is not complete yet.</summary>
    Unsaid,

    /// <summary>A connection with a port of the guest's.</summary>
    Connect,

    /// <summary>The next connection that the guest makes to a port of the host's.</summary>
    Accept,

    /// <summary>It has said something else, or has left.</summary>
    Nonsense,
}

/// <summary>What a host program says that wants to be connected with the guest: <c>CONNECT port\n</c>. Once the guest has agreed it is
/// answered <c>OK port\n</c>, with the port on the host's side, and the stream begins (as Firecracker and cloud-hypervisor have it). Or
/// <c>ACCEPT port\n</c>: once the guest has connected to that port of the host, it is answered <c>OK port\n</c>, with the guest's port.</summary>
internal sealed class HostHandshake(ulong id, UnixSocket socket) : IDisposable
{
    private const int MaxLine = 32;

    private readonly byte[] _line = new byte[MaxLine];
    private int _length;

    /// <summary>By which it is known to whoever waits for its socket.</summary>
    public ulong Id { get; } = id;

    /// <summary>The program's connection.</summary>
    public UnixSocket Socket { get; } = socket;

    /// <summary>The port that it has named.</summary>
    public uint Port { get; private set; }

    /// <summary>The answer that names <paramref name="port"/>.</summary>
    public static byte[] Answer(uint port) => Encoding.ASCII.GetBytes($"OK {port}\n");

    /// <summary>Reads what has come of the line, and nothing that comes after it.</summary>
    public HostWish Read()
    {
        while (_length < MaxLine)
        {
            int count = Socket.TryRead(_line.AsSpan(_length, 1));
            if (count == -Errnos.Eagain)
                return HostWish.Unsaid;
            if (count <= 0)
                return HostWish.Nonsense;
            if (_line[_length] == (byte)'\n')
                return Parse(_line.AsSpan(0, _length));
            _length++;
        }
        return HostWish.Nonsense;
    }

    /// <inheritdoc/>
    public void Dispose() => Socket.Dispose();

    // Port 0 is nobody's, and VMADDR_PORT_ANY (vsock(7)) none.
    private HostWish Parse(ReadOnlySpan<byte> line)
    {
        if (line is [.. var rest, (byte)'\r'])
            line = rest;
        HostWish wish = line.StartsWith("CONNECT "u8) ? HostWish.Connect : line.StartsWith("ACCEPT "u8) ? HostWish.Accept : HostWish.Nonsense;
        ReadOnlySpan<byte> number = line[(line.IndexOf((byte)' ') + 1)..];
        if (!Utf8Parser.TryParse(number, out uint port, out int consumed) || consumed != number.Length || port is 0 or uint.MaxValue)
            return HostWish.Nonsense;
        Port = port;
        return wish;
    }
}
