using System.Runtime.InteropServices;
using Vmm.Boot.Payload;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Boot.Cache;

/// <summary>Writes an unpacked kernel to a file, but for its pages of zeros. After a failure it does nothing any more.</summary>
internal sealed class CacheFileWriter(FileDescriptor file) : IPayloadSink
{
    private const int PageSize = CacheFooter.PageSize;

    private readonly List<PageRun> _runs = [];
    private PageChecksum _checksum = new();

    /// <summary>The error number of the first write that failed; 0 for none.</summary>
    public int Errno { get; private set; }

    /// <inheritdoc/>
    public void Write(int position, ReadOnlySpan<byte> bytes)
    {
        int used = 0;       // where a run begins that is still to be written
        int at = 0;
        for (; at + PageSize <= bytes.Length; at += PageSize)
        {
            if (bytes.Slice(at, PageSize).ContainsAnyExcept((byte)0))
                continue;
            Append(position + used, bytes[used..at]);
            used = at + PageSize;
        }
        Append(position + used, bytes[used..at]);
        if (at == bytes.Length)
            return;
        Span<byte> last = stackalloc byte[PageSize];
        last.Clear();
        bytes[at..].CopyTo(last);
        Append(position + at, last);
    }

    /// <summary>Writes what belongs behind the pages.</summary>
    /// <param name="source">The bzImage.</param>
    /// <param name="packed">The checksum of its payload.</param>
    /// <param name="length">Bytes that it unpacks to.</param>
    public void Finish(in FileVersion source, in PageChecksum packed, int length)
    {
        Span<PageRun> runs = new PageRun[CacheFooter.SizeOfRuns(_runs.Count) / 8];
        CollectionsMarshal.AsSpan(_runs).CopyTo(runs);
        Append(MemoryMarshal.AsBytes(runs));
        Span<byte> footer = stackalloc byte[CacheFooter.WireSize];
        footer.Clear();
        MemoryMarshal.Write(footer, new CacheFooter(CacheFooter.CurrentMagic, source, packed, (uint)length, (uint)_runs.Count));
        Append(footer);
        Span<byte> checksum = stackalloc byte[PageChecksum.Size];
        _checksum.Write(checksum);
        TryWrite(checksum);
    }

    private void Append(int position, ReadOnlySpan<byte> pages)
    {
        if (pages.IsEmpty)
            return;
        uint first = (uint)position / PageSize;
        uint count = (uint)pages.Length / PageSize;
        if (_runs is [.., var last] && last.First + last.Count == first)
            _runs[^1] = last with { Count = last.Count + count };
        else
            _runs.Add(new PageRun(first, count));
        Append(pages);
    }

    private void Append(ReadOnlySpan<byte> bytes)
    {
        _checksum.Add(bytes);
        TryWrite(bytes);
    }

    private void TryWrite(ReadOnlySpan<byte> bytes)
    {
        while (!bytes.IsEmpty && Errno == 0)
        {
            int count = file.TryWrite(bytes);
            if (count > 0)
                bytes = bytes[count..];
            else
                Errno = count < 0 ? -count : Errnos.Enospc;
        }
    }
}
