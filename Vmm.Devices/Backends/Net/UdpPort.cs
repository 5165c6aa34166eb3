using System.Net;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Backends.Net;

/// <summary>A wire of UDP datagrams, each of which is one Ethernet frame without anything before or behind it, as with QEMU's
/// <c>-netdev socket,udp=…</c>. Pair N uses the Nth port behind those that are given, on both ends.</summary>
internal sealed class UdpPort : IFramePort
{
    // Datagrams that find no room are lost without a word: room for some 5,000 small ones.
    private const int ReceiveBuffer = 4 << 20;

    private readonly UdpSocket[] _sockets;

    /// <summary>Opens a socket for each of <paramref name="pairs"/>.</summary>
    /// <exception cref="ErrnoException">An address cannot be used; the message names it.</exception>
    public UdpPort(IPEndPoint local, IPEndPoint remote, int pairs)
    {
        _sockets = new UdpSocket[pairs];
        try
        {
            for (int i = 0; i < pairs; i++)
            {
                _sockets[i] = UdpSocket.Connect(
                    new IPEndPoint(local.Address, local.Port + i), new IPEndPoint(remote.Address, remote.Port + i), ReceiveBuffer);
            }
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>The numbers of its sockets' descriptors.</summary>
    public IReadOnlyList<uint> SocketNumbers => [.. _sockets.Select(socket => (uint)socket.Number)];

    /// <inheritdoc/>
    public ulong Features => 0;

    /// <inheritdoc/>
    public string? Fate => null;

    /// <inheritdoc/>
    public bool CanBeGone => false;

    /// <inheritdoc/>
    public int? Mtu => null;

    /// <inheritdoc/>
    public FileDescriptor Receiver(int pair) => _sockets[pair];

    /// <inheritdoc/>
    public void Accept(ulong features)
    {
    }

    /// <inheritdoc/>
    public void Use(int pair, bool use)
    {
    }

    /// <inheritdoc/>
    public int TrySend(int pair, ReadOnlySpan<IoVector> vectors)
    {
        int sent = VectoredIo.TryWrite(_sockets[pair], vectors[1..]);
        // The network's error about an earlier datagram (nobody listens, a firewall is in the way) fails the next call, which sends nothing
        // then. The error comes once, so the datagram is sent again.
        return sent < 0 && sent != -Errnos.Eagain ? VectoredIo.TryWrite(_sockets[pair], vectors[1..]) : sent;
    }

    /// <inheritdoc/>
    public int TryReceive(int pair, Span<byte> buffer)
    {
        int count = _sockets[pair].TryRead(buffer[IFramePort.HeaderSize..]);
        if (count < 0)
            return count;
        buffer[..IFramePort.HeaderSize].Clear();
        return IFramePort.HeaderSize + count;
    }

    /// <inheritdoc/>
    public override string ToString() => "the UDP wire";

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (UdpSocket? socket in _sockets)
            socket?.Dispose();
    }
}
