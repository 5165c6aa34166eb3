namespace Vmm.Boot.Payload;

/// <summary>A decoder around a library that decodes as a stream.</summary>
internal abstract class StreamDecoder : PayloadDecoder
{
    private const int BufferSize = 64 << 10;

    /// <inheritdoc/>
    public override void DecodeHead(in MappedRange packed, Span<byte> head)
    {
        using Stream stream = Open(packed);
        Fill(stream, head);
    }

    /// <inheritdoc/>
    public override void Decode(in MappedRange packed, Span<byte> target)
    {
        using Stream stream = Open(packed);
        Fill(stream, target);
        if (stream.ReadByte() >= 0)
            throw new InvalidDataException($"more than the {target.Length} bytes that it should unpack to");
    }

    /// <summary>The stream of unpacked bytes.</summary>
    protected abstract Stream Open(in MappedRange packed);

    /// <summary>Reads until <paramref name="target"/> is full or the stream ends, in pieces: several libraries would rent a managed buffer
    /// of the whole size.</summary>
    /// <returns>The bytes read.</returns>
    internal static int FillSome(Stream stream, Span<byte> target)
    {
        byte[] buffer = new byte[BufferSize];
        int done = 0;
        while (done < target.Length)
        {
            int count = stream.Read(buffer, 0, Math.Min(buffer.Length, target.Length - done));
            if (count <= 0)
                break;
            buffer.AsSpan(0, count).CopyTo(target[done..]);
            done += count;
        }
        return done;
    }

    private static void Fill(Stream stream, Span<byte> target)
    {
        int count = FillSome(stream, target);
        if (count < target.Length)
            throw new EndOfStreamException($"it ends after {count} of {target.Length} bytes");
    }
}
