using System.Runtime.InteropServices;
using Vmm.Boot.Payload;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Boot.Cache;

/// <summary>An unpacked kernel in its file, which was found sound when it was opened.</summary>
internal sealed class CachedPayload : IKernelPayload, IDisposable
{
    private const int PageSize = CacheFooter.PageSize;

    private readonly RegularFile _file;
    private readonly FileVersion _version;
    private readonly PageRun[] _runs;
    private MappedFile? _view;

    private CachedPayload(RegularFile file, in FileVersion version, MappedFile view, in CacheFooter footer, PageRun[] runs)
    {
        (_file, _version, _view, _runs) = (file, version, view, runs);
        (Source, Length) = (footer.Source, (int)footer.Length);
    }

    /// <summary>What it was unpacked from.</summary>
    public FileVersion Source { get; }

    /// <summary>Whether the file is as it was when it was found sound. If not, its pages may be others, and those behind a nearer end would end this process by SIGBUS.</summary>
    /// <exception cref="ErrnoException">fstat(2) failed.</exception>
    public bool IsUnchanged => _file.ReadVersion() == _version;

    /// <inheritdoc/>
    public string Name => "kept";

    /// <inheritdoc/>
    public int Length { get; }

    /// <summary>Opens what <paramref name="file"/> has.</summary>
    /// <param name="file">The file; it belongs to the result.</param>
    /// <param name="source">What it must have been unpacked from.</param>
    /// <param name="packed">The checksum of its payload.</param>
    /// <returns>Null, and the file is closed, if it is not sound, or not of <paramref name="source"/>.</returns>
    /// <exception cref="ErrnoException">mmap(2) failed; the file is closed.</exception>
    public static CachedPayload? TryOpen(RegularFile file, in FileVersion source, in PageChecksum packed)
    {
        MappedFile? view = null;
        CachedPayload? payload = null;
        try
        {
            if (file.Length is >= CacheFooter.WireSize + PageChecksum.Size and <= int.MaxValue)
            {
                FileVersion version = file.ReadVersion();
                view = file.Map();
                if (version.Size == file.Length && TryRead(view.Bytes, source, packed, out CacheFooter footer, out PageRun[] runs))
                    payload = new CachedPayload(file, version, view, footer, runs);
            }
            return payload;
        }
        finally
        {
            if (payload is null)
            {
                view?.Dispose();
                file.Dispose();
            }
        }
    }

    private MappedFile View => _view ??= _file.Map();

    /// <inheritdoc/>
    public void CopyHead(Span<byte> head)
    {
        head.Clear();
        if (_runs is [{ First: 0 }, ..])
            View.Bytes[..Math.Min(head.Length, (int)_runs[0].Count * PageSize)].CopyTo(head);
    }

    /// <inheritdoc/>
    public void CopyTo(IPayloadSink sink)
    {
        ReadOnlySpan<byte> pages = View.Bytes;
        foreach (PageRun run in _runs)
        {
            int position = (int)run.First * PageSize;
            int size = (int)run.Count * PageSize;
            sink.Write(position, pages[..Math.Min(size, Length - position)]);
            pages = pages[size..];
        }
        // Nobody needs it until the guest resets.
        _view?.Dispose();
        _view = null;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _view?.Dispose();
        _file.Dispose();
    }

    private static bool TryRead(ReadOnlySpan<byte> file, in FileVersion source, in PageChecksum packed, out CacheFooter footer, out PageRun[] runs)
    {
        int end = file.Length - PageChecksum.Size - CacheFooter.WireSize;
        footer = MemoryMarshal.Read<CacheFooter>(file[end..]);
        runs = [];
        if (footer.Magic != CacheFooter.CurrentMagic || footer.Source != source || footer.Packed != packed || footer.Length is 0 or > PackedPayload.MaxLength)
            return false;
        uint pageCount = (footer.Length + PageSize - 1) / PageSize;
        if (footer.RunCount > pageCount)
            return false;
        int start = end - CacheFooter.SizeOfRuns((int)footer.RunCount);
        if (start < 0 || start % PageSize != 0)
            return false;
        runs = MemoryMarshal.Cast<byte, PageRun>(file[start..end])[..(int)footer.RunCount].ToArray();
        ulong next = 0, kept = 0;
        foreach (PageRun run in runs)
        {
            if (run.First < next || run.Count == 0)
                return false;
            next = (ulong)run.First + run.Count;
            kept += run.Count;
        }
        return next <= pageCount && kept == (ulong)(start / PageSize) && IsSound(file);
    }

    private static bool IsSound(ReadOnlySpan<byte> file)
    {
        var checksum = new PageChecksum();
        checksum.Add(file[..^PageChecksum.Size]);
        Span<byte> expected = stackalloc byte[PageChecksum.Size];
        checksum.Write(expected);
        return file.EndsWith(expected);
    }
}
