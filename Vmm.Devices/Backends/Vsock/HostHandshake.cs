using System.Buffers.Text;
using System.Text;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Backends.Vsock;

/// <summary>What a host program says that wants to be connected with the guest: <c>CONNECT port\n</c>. Once the guest has agreed it is
/// answered <c>OK port\n</c>, with the port on the host's side, and the stream begins (as Firecracker and cloud-hypervisor have it).</summary>
internal sealed class HostHandshake(ulong id, UnixSocket socket) : IDisposable
{
    private const int MaxLine = 32;

    private readonly byte[] _line = new byte[MaxLine];
    private int _length;

    /// <summary>By which it is known to whoever waits for its socket.</summary>
    public ulong Id { get; } = id;

    /// <summary>The program's connection.</summary>
    public UnixSocket Socket { get; } = socket;

    /// <summary>The answer that names <paramref name="hostPort"/>.</summary>
    public static byte[] Answer(uint hostPort) => Encoding.ASCII.GetBytes($"OK {hostPort}\n");

    /// <summary>Reads what has come of the line, and nothing that comes after it.</summary>
    /// <returns>The port; 0 while the line is not complete; null if it is none, or the program has left.</returns>
    public uint? ReadPort()
    {
        while (_length < MaxLine)
        {
            int count = Socket.TryRead(_line.AsSpan(_length, 1));
            if (count == -Errnos.Eagain)
                return 0;
            if (count <= 0)
                return null;
            if (_line[_length] == (byte)'\n')
                return Parse(_line.AsSpan(0, _length));
            _length++;
        }
        return null;
    }

    /// <inheritdoc/>
    public void Dispose() => Socket.Dispose();

    // Port 0 is nobody's, and VMADDR_PORT_ANY (vsock(7)) none.
    private static uint? Parse(ReadOnlySpan<byte> line)
    {
        if (line is [.. var rest, (byte)'\r'])
            line = rest;
        return line.StartsWith("CONNECT "u8) && Utf8Parser.TryParse(line["CONNECT ".Length..], out uint port, out int consumed)
            && consumed == line.Length - "CONNECT ".Length && port is not (0 or uint.MaxValue)
            ? port
            : null;
    }
}
