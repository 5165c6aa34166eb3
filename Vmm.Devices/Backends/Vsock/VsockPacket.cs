namespace Vmm.Devices.Backends.Vsock;

/// <summary>A packet that is on its way to the guest: a header, and data that may be handed over piece by piece.</summary>
internal sealed class VsockPacket
{
    /// <summary>The most data in a packet, as much as Linux puts into one (VIRTIO_VSOCK_MAX_PKT_BUF_SIZE).</summary>
    public const int MaxData = 64 * 1024;

    private VsockHeader _header;

    /// <summary>Whether there is a packet.</summary>
    public bool IsThere { get; private set; }

    /// <summary>Where data goes before <see cref="Set"/>.</summary>
    public byte[] Buffer { get; } = new byte[MaxData];

    /// <summary>The header of the next piece; its length is that of <see cref="Data"/>.</summary>
    public ref readonly VsockHeader Header => ref _header;

    /// <summary>The data that is left.</summary>
    public ReadOnlySpan<byte> Data => Buffer.AsSpan(Offset, (int)_header.Length);

    private int Offset { get; set; }

    /// <summary>Makes it the packet with <paramref name="header"/>, and as much of <see cref="Buffer"/> as that says.</summary>
    public void Set(in VsockHeader header)
    {
        _header = header;
        Offset = 0;
        IsThere = true;
    }

    /// <summary>The first <paramref name="count"/> bytes were handed over. Without any left there is no packet any more.</summary>
    public void Advance(int count)
    {
        Offset += count;
        _header.Length -= (uint)count;
        IsThere = _header.Length > 0;
    }

    /// <summary>There is no packet.</summary>
    public void Clear() => IsThere = false;
}
