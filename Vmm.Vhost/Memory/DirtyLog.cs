using Vmm.Vhost.Native;

namespace Vmm.Vhost.Memory;

/// <summary>The pages that a device has written to, one bit for each 4 KiB from guest-physical address 0 on, in memory that a migration reads
/// and clears meanwhile (vhost-user.rst, "Migration").</summary>
internal sealed unsafe class DirtyLog : IDisposable
{
    private const int PageShift = 12;
    private const ulong BitsInWord = 64;

    private readonly MemoryMapping _mapping;
    private readonly ulong* _words;     // aligned
    private readonly ulong _firstBit;   // the first page's, in them
    private readonly ulong _size;

    /// <summary>A log of <paramref name="size"/> bytes at <paramref name="offset"/> of <paramref name="mapping"/>, which belongs to it from now
    /// on.</summary>
    public DirtyLog(MemoryMapping mapping, ulong offset, ulong size)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(offset, mapping.Length);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(size, mapping.Length - offset);
        _mapping = mapping;
        // SAFETY: just checked to lie in the mapping, which begins at a page.
        byte* bits = mapping.Pointer + offset;
        _words = (ulong*)((nint)bits & ~(nint)7);
        _firstBit = (ulong)((nint)bits & 7) * 8;
        _size = size;
    }

    /// <summary>Signalled by <see cref="Tell"/>; null if nobody wants to know.</summary>
    public EventFd? Changed { get; set; }

    /// <summary>Says that <paramref name="length"/> bytes were written. Pages behind the end of the log are none that it is asked for.</summary>
    public void Mark(ulong address, ulong length)
    {
        if (length == 0)
            return;
        // What was written must be seen by whoever clears a bit before it is seen here that the bit is set: a processor may look first
        // and write afterwards, and then the page would count as clean although its copy is old.
        Interlocked.MemoryBarrier();
        ulong last = address + (length - 1) < address ? ulong.MaxValue : address + (length - 1);
        ulong end = _firstBit + Math.Min((last >> PageShift) + 1, _size * 8);
        ulong count;
        for (ulong bit = _firstBit + (address >> PageShift); bit < end; bit += count)
        {
            int place = (int)(bit % BitsInWord);
            count = Math.Min(BitsInWord - (ulong)place, end - bit);
            ulong mask = ulong.MaxValue >> (int)(BitsInWord - count) << place;
            // SAFETY: a page's byte lies in the log, and the aligned word around it in the page of that byte. The bits of others in it stay as they are.
            ref ulong word = ref _words[bit / BitsInWord];
            if ((Volatile.Read(ref word) & mask) != mask)
                Interlocked.Or(ref word, mask);
        }
    }

    /// <summary>Tells whoever wants to know that there is something in the log.</summary>
    public void Tell() => Changed?.Signal();

    public void Dispose() => _mapping.Dispose();
}
