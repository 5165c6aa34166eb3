namespace Vmm.Vhost.Virtqueue;

/// <summary>A request: the buffers that a driver has chained, those to read and those to write (VIRTIO 1.2 §2.7.4). Valid until the
/// next one is taken from the same queue.</summary>
public readonly ref struct DescriptorChain
{
    internal DescriptorChain(ushort head, ReadOnlySpan<GuestBuffer> readable, ReadOnlySpan<GuestBuffer> writable)
    {
        Head = head;
        Readable = readable;
        Writable = writable;
    }

    /// <summary>The number by which the chain is given back.</summary>
    public ushort Head { get; }

    /// <summary>The buffers that the device reads (device-readable), in the order of the chain.</summary>
    public ReadOnlySpan<GuestBuffer> Readable { get; }

    /// <summary>The buffers that the device writes (device-writable), in the order of the chain.</summary>
    public ReadOnlySpan<GuestBuffer> Writable { get; }

    /// <summary>Bytes to read.</summary>
    public ulong ReadableLength => Length(Readable);

    /// <summary>Bytes to write.</summary>
    public ulong WritableLength => Length(Writable);

    /// <summary>Copies what the device reads, from byte <paramref name="offset"/> on, however the driver has cut it up.</summary>
    /// <returns>Bytes copied: fewer than asked for at the end.</returns>
    public int Read(ulong offset, Span<byte> target)
    {
        int copied = 0;
        foreach (GuestBuffer piece in new GuestBufferRange(Readable, offset, (ulong)target.Length))
        {
            piece.Span.CopyTo(target[copied..]);
            copied += (int)piece.Length;
        }
        return copied;
    }

    /// <summary>Copies <paramref name="source"/> to where the device writes, from byte <paramref name="offset"/> on.</summary>
    /// <returns>Bytes copied: fewer than given where there is no more room.</returns>
    public int Write(ulong offset, ReadOnlySpan<byte> source)
    {
        int copied = 0;
        foreach (GuestBuffer piece in new GuestBufferRange(Writable, offset, (ulong)source.Length))
        {
            source.Slice(copied, (int)piece.Length).CopyTo(piece.Span);
            copied += (int)piece.Length;
        }
        return copied;
    }

    private static ulong Length(ReadOnlySpan<GuestBuffer> buffers)
    {
        ulong length = 0;
        foreach (GuestBuffer buffer in buffers)
            length += buffer.Length;
        return length;
    }
}
