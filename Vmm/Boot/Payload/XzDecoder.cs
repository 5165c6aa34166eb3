using SharpCompress.Compressors.LZMA;

namespace Vmm.Boot.Payload;

/// <summary>xz (The .xz File Format 1.2.1). The container and the x86 branch filter are read here and only LZMA2 by the library: its own
/// xz reader filters each read by itself, and so damages what lies across two.</summary>
internal sealed class XzDecoder : WholeDecoder
{
    private const int StreamHeaderSize = 12;
    private const int CheckTypeOffset = 7;
    private const int MaxBlocks = 4096;
    private const int LookAhead = 16;   // the branch filter of a byte depends on the few that follow it

    /// <inheritdoc/>
    public override string Format => "xz";

    /// <inheritdoc/>
    public override void DecodeHead(in MappedRange packed, Span<byte> head)
    {
        StrictStream source = Open(packed, out XzCheck check);
        uint dictionary = 0;
        for (int blocks = 0; ; blocks++)
        {
            XzBlockHeader block = NextBlock(source, blocks) ?? throw new InvalidDataException($"{head.Length} bytes are missing");
            dictionary = Math.Max(dictionary, block.DictionarySize);
            byte[] buffer = new byte[head.Length + LookAhead];
            Span<byte> data = buffer.AsSpan(0, FillBlock(source, block, buffer));
            if (block.HasX86Filter)
                X86BranchFilter.Decode(data);
            bool hasMore = data.Length < head.Length;
            data[..Math.Min(data.Length, head.Length)].CopyTo(head);
            if (!hasMore)
                break;
            source.SkipTo4();
            check.Verify(source, data);
            head = head[data.Length..];
        }
        LzmaDictionary.Release(dictionary);
    }

    /// <inheritdoc/>
    protected override void Decode(in MappedRange packed, Span<byte> target)
    {
        StrictStream source = Open(packed, out XzCheck check);
        uint dictionary = 0;
        for (int blocks = 0; NextBlock(source, blocks) is XzBlockHeader block; blocks++)
        {
            dictionary = Math.Max(dictionary, block.DictionarySize);
            Span<byte> data = target[..FillBlock(source, block, target, toTheEnd: true)];
            if (block.HasX86Filter)
                X86BranchFilter.Decode(data);
            source.SkipTo4();
            check.Verify(source, data);
            target = target[data.Length..];
        }
        if (!target.IsEmpty)
            throw new InvalidDataException($"{target.Length} bytes are missing");
        LzmaDictionary.Release(dictionary);
    }

    /// <summary>Unpacks a file by itself, of which nothing says what size it unpacks to.</summary>
    /// <param name="packed">The whole file.</param>
    /// <param name="limit">The most bytes that it may unpack to.</param>
    public static byte[] DecodeFile(in MappedRange packed, int limit)
    {
        StrictStream source = OpenStream(packed, out XzCheck check);
        using var target = new MemoryStream();
        for (int blocks = 0; NextBlock(source, blocks) is XzBlockHeader block; blocks++)
        {
            int start = (int)target.Length;
            using (LzmaStream stream = OpenBlock(source, block))
                CompressedFile.CopyAll(stream, target, limit);
            Span<byte> data = target.GetBuffer().AsSpan(start, (int)target.Length - start);
            if (block.HasX86Filter)
                X86BranchFilter.Decode(data);
            source.SkipTo4();
            check.Verify(source, data);
        }
        return target.ToArray();
    }

    // The kernel's build makes one block, and tools with several threads one for some megabytes. Each costs the set-up of a decoder.
    private static XzBlockHeader? NextBlock(StrictStream source, int before)
    {
        XzBlockHeader? block = XzBlockHeader.Read(source);
        return block is null || before < MaxBlocks ? block : throw new InvalidDataException($"more than {MaxBlocks} blocks");
    }

    private static StrictStream Open(in MappedRange packed, out XzCheck check) =>
        OpenStream(packed.Slice(0, packed.Length - SizeTrailer), out check);

    private static StrictStream OpenStream(in MappedRange packed, out XzCheck check)
    {
        var source = new StrictStream(packed.OpenStream());
        Span<byte> header = stackalloc byte[StreamHeaderSize];
        source.ReadExactly(header);
        check = new XzCheck(header[CheckTypeOffset]);
        return source;
    }

    /// <summary>Decodes a block until it ends or <paramref name="target"/> is full; if <paramref name="toTheEnd"/>, it must have ended by then.</summary>
    private static int FillBlock(StrictStream source, in XzBlockHeader block, Span<byte> target, bool toTheEnd = false)
    {
        using LzmaStream stream = OpenBlock(source, block);
        int count = StreamDecoder.FillSome(stream, target);
        if (toTheEnd && count == target.Length && stream.ReadByte() >= 0)
            throw new InvalidDataException("more bytes than it should unpack to");
        return count;
    }

    private static LzmaStream OpenBlock(StrictStream source, in XzBlockHeader block) =>
        LzmaStream.Create([block.DictionaryProperty], source, -1, -1, null, isLzma2: true, leaveOpen: true);
}
