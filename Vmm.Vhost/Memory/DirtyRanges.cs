namespace Vmm.Vhost.Memory;

/// <summary>Ranges of guest memory on their way into a <see cref="DirtyLog"/>. They may lie upon each other, as the buffers of a hostile driver's request
/// do: each page is looked at once, so that the work is bounded by the size of the log. Not thread-safe.</summary>
/// <param name="log">Where.</param>
/// <param name="capacity">How many ranges there can be.</param>
internal sealed class DirtyRanges(DirtyLog log, int capacity)
{
    private readonly ulong[] _starts = new ulong[capacity];
    private readonly ulong[] _ends = new ulong[capacity];
    private int _count;

    /// <summary>Adds a range.</summary>
    /// <param name="address">Its guest-physical address.</param>
    /// <param name="length">Its bytes; 0 for nothing. No range reaches behind 2^64 - 1.</param>
    public void Add(ulong address, ulong length)
    {
        if (length == 0)
            return;
        _starts[_count] = address;
        _ends[_count++] = address + length;
    }

    /// <summary>Says that all of them were written, and forgets them.</summary>
    public void Mark()
    {
        _starts.AsSpan(0, _count).Sort(_ends.AsSpan(0, _count));
        for (int i = 0; i < _count;)
        {
            (ulong start, ulong end) = (_starts[i], _ends[i]);
            for (i++; i < _count && _starts[i] <= end; i++)
                end = Math.Max(end, _ends[i]);
            log.Mark(start, end - start);
        }
        _count = 0;
    }
}
