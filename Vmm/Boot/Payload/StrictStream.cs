namespace Vmm.Boot.Payload;

/// <summary>Throws where <paramref name="inner"/> ends, for decoders that would take the end for data and go on for ever.</summary>
internal sealed class StrictStream(Stream inner) : Stream
{
    /// <inheritdoc/>
    public override bool CanRead => true;

    /// <inheritdoc/>
    public override bool CanSeek => false;

    /// <inheritdoc/>
    public override bool CanWrite => false;

    /// <inheritdoc/>
    public override long Length => inner.Length;

    /// <inheritdoc/>
    public override long Position
    {
        get => inner.Position;
        set => throw new NotSupportedException();
    }

    /// <inheritdoc/>
    public override int ReadByte() => inner.ReadByte() is >= 0 and var value ? value : throw Truncated();

    /// <inheritdoc/>
    public override int Read(byte[] buffer, int offset, int count) => Read(buffer.AsSpan(offset, count));

    /// <inheritdoc/>
    public override int Read(Span<byte> buffer)
    {
        int count = inner.Read(buffer);
        return count > 0 || buffer.IsEmpty ? count : throw Truncated();
    }

    /// <summary>Reads up to three bytes, until the position is a multiple of four.</summary>
    public void SkipTo4()
    {
        while (Position % 4 != 0)
            _ = ReadByte();
    }

    /// <inheritdoc/>
    public override void Flush()
    {
    }

    /// <inheritdoc/>
    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

    /// <inheritdoc/>
    public override void SetLength(long value) => throw new NotSupportedException();

    /// <inheritdoc/>
    public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();

    private static EndOfStreamException Truncated() => new("truncated");
}
