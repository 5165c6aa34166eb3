using Vmm.Vhost.Native;

namespace Vmm.Vhost.Memory;

/// <summary>The pages that a device has written to, one bit for each 4 KiB from guest-physical address 0 on, in memory that a migration reads
/// and clears meanwhile (vhost-user.rst, "Migration").</summary>
internal sealed unsafe class DirtyLog : IDisposable
{
    private const int PageShift = 12;

    private readonly MemoryMapping _mapping;
    private readonly byte* _bits;
    private readonly ulong _size;

    /// <summary>A log of <paramref name="size"/> bytes at <paramref name="offset"/> of <paramref name="mapping"/>, which belongs to it from now
    /// on.</summary>
    public DirtyLog(MemoryMapping mapping, ulong offset, ulong size)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(offset, mapping.Length);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(size, mapping.Length - offset);
        _mapping = mapping;
        // SAFETY: just checked to lie in the mapping.
        _bits = mapping.Pointer + offset;
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
        ulong end = Math.Min((last >> PageShift) + 1, _size * 8);
        for (ulong page = address >> PageShift; page < end; page++)
        {
            // SAFETY: the byte lies in the log; the aligned word around it in the page of the byte, and its other bits stay as they are.
            byte* place = _bits + page / 8;
            var word = (int*)((nint)place & ~3);
            int bit = (int)((nint)place & 3) * 8 + (int)(page % 8);
            if ((Volatile.Read(ref *word) & 1 << bit) == 0)
                Interlocked.Or(ref *word, 1 << bit);
        }
    }

    /// <summary>Tells whoever wants to know that there is something in the log.</summary>
    public void Tell() => Changed?.Signal();

    public void Dispose() => _mapping.Dispose();
}
