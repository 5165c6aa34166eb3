namespace Vmm.Boot.Payload;

/// <summary>A decoder around a library that decodes as a stream.</summary>
internal abstract class StreamDecoder : PayloadDecoder
{
    private const int BufferSize = 64 << 10;

    /// <inheritdoc/>
    public override void DecodeHead(in MappedRange packed, Span<byte> head)
    {
        using Stream stream = Open(packed);
        int count = FillSome(stream, head);
        if (count < head.Length)
            throw EndsAfter(count, head.Length);
    }

    /// <inheritdoc/>
    public override void Decode(in MappedRange packed, int length, IPayloadSink sink)
    {
        using Stream stream = Open(packed);
        byte[] buffer = new byte[BufferSize];
        for (int done = 0; done < length;)
        {
            Span<byte> piece = buffer.AsSpan(0, Math.Min(buffer.Length, length - done));
            int count = stream.ReadAtLeast(piece, piece.Length, throwOnEndOfStream: false);
            if (count < piece.Length)
                throw EndsAfter(done + count, length);
            sink.Write(done, piece);
            done += count;
        }
        if (stream.ReadByte() >= 0)
            throw new InvalidDataException($"more than the {length} bytes that it should unpack to");
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

    private static EndOfStreamException EndsAfter(int count, int length) => new($"it ends after {count} of {length} bytes");
}
