using System.Runtime.InteropServices;
using Tmds.Linux;

namespace Vmm.Vhost.Native;

/// <summary>A mapping made by mmap(2), unmapped when disposed or collected.</summary>
public sealed unsafe class MemoryMapping : SafeHandle
{
    private const int MadvPopulateWrite = 23;   // linux/mman.h, Linux 5.14
    private const int MadvCollapse = 25;        // linux/mman.h, Linux 6.1

    private MemoryMapping(nint address, ulong length)
        : base(-1, ownsHandle: true)
    {
        SetHandle(address);
        Length = length;
    }

    /// <inheritdoc/>
    public override bool IsInvalid => handle == -1;

    /// <summary>Bytes mapped.</summary>
    public ulong Length { get; }

    /// <summary>The first byte. Valid until disposed.</summary>
    /// <exception cref="ObjectDisposedException">It is unmapped.</exception>
    public byte* Pointer
    {
        get
        {
            ObjectDisposedException.ThrowIf(IsClosed, this);
            return (byte*)handle;
        }
    }

    /// <summary>Maps <paramref name="length"/> bytes of <paramref name="fd"/> from <paramref name="offset"/>.</summary>
    /// <exception cref="ErrnoException">mmap(2) failed.</exception>
    public static MemoryMapping Map(FileDescriptor fd, ulong length, MappingAccess access, ulong offset = 0) =>
        new((nint)Map(null, length, access, fd, 0, offset), length);

    /// <summary>Maps <paramref name="length"/> bytes of <paramref name="fd"/> at a multiple of <paramref name="alignment"/>, so that huge
    /// pages of that size fit both the file and the mapping.</summary>
    /// <param name="fd">The file, mapped from its start.</param>
    /// <param name="length">Bytes; a multiple of the page size.</param>
    /// <param name="access">What the mapping is for.</param>
    /// <param name="alignment">A power of two, at least the page size.</param>
    /// <exception cref="ErrnoException">mmap(2) failed.</exception>
    public static MemoryMapping MapAligned(FileDescriptor fd, ulong length, MappingAccess access, ulong alignment)
    {
        ulong room = checked(length + alignment);
        // SAFETY: the room is reserved first, the file is mapped over a part of it, and the rest is given back: only addresses
        // that belong to this call are touched.
        byte* reserved = (byte*)Map(null, room, MappingAccess.Reserved, null, LibC.MAP_ANONYMOUS, 0);
        byte* aligned = (byte*)Align.Up((ulong)reserved, alignment);
        try
        {
            Map(aligned, length, access, fd, LibC.MAP_FIXED, 0);
        }
        catch
        {
            _ = LibC.munmap(reserved, (size_t)room);
            throw;
        }
        ulong before = (ulong)(aligned - reserved);
        if (before > 0)
            _ = LibC.munmap(reserved, (size_t)before);
        if (alignment > before)
            _ = LibC.munmap(aligned + length, (size_t)(alignment - before));
        return new MemoryMapping((nint)aligned, length);
    }

    /// <summary>Makes <paramref name="length"/> bytes of memory of its own, all zero, which take pages when they are touched.</summary>
    /// <exception cref="ErrnoException">There are not so many.</exception>
    public static MemoryMapping Allocate(ulong length) =>
        new((nint)Map(null, length, MappingAccess.PrivateZeros, null, LibC.MAP_ANONYMOUS, 0), length);

    /// <summary>All of it, where it has at most 2 GiB - 1. Valid until disposed.</summary>
    /// <exception cref="ObjectDisposedException">It is unmapped.</exception>
    // SAFETY: exactly the mapped range.
    public Span<byte> AsSpan() => new(Pointer, checked((int)Length));

    /// <summary>Keeps <paramref name="length"/> bytes of addresses free, for <see cref="Insert"/>.</summary>
    /// <exception cref="ErrnoException">There are not so many.</exception>
    public static MemoryMapping Reserve(ulong length) =>
        new((nint)Map(null, length, MappingAccess.Reserved, null, LibC.MAP_ANONYMOUS, 0), length);

    /// <summary>Maps a part of a file over a part of this mapping, at one stroke.</summary>
    /// <param name="offset">Where in this mapping; a multiple of the page size.</param>
    /// <param name="length">Bytes; a multiple of the page size.</param>
    /// <param name="fd">The file.</param>
    /// <param name="fileOffset">Where in the file; a multiple of the page size.</param>
    /// <param name="access">What for.</param>
    /// <exception cref="ErrnoException">mmap(2) failed; the mapping is as it was.</exception>
    public void Insert(ulong offset, ulong length, FileDescriptor fd, ulong fileOffset, MappingAccess access)
    {
        CheckRange(offset, length);
        using var held = new Held(this);
        // SAFETY: MAP_FIXED over a range that this mapping owns.
        Map(held.Pointer + offset, length, access, fd, LibC.MAP_FIXED, fileOffset);
    }

    /// <summary>Takes away what <see cref="Insert"/> has mapped: the addresses are kept free again.</summary>
    /// <exception cref="ErrnoException">mmap(2) failed; the mapping is as it was.</exception>
    public void Remove(ulong offset, ulong length)
    {
        CheckRange(offset, length);
        using var held = new Held(this);
        // SAFETY: as above.
        Map(held.Pointer + offset, length, MappingAccess.Reserved, null, LibC.MAP_ANONYMOUS | LibC.MAP_FIXED, 0);
    }

    /// <summary>Backs a part of the mapping with pages now (MADV_POPULATE_WRITE; an error and not a SIGBUS when pages run out).</summary>
    /// <param name="offset">Where it begins; a multiple of the page size.</param>
    /// <param name="length">Bytes; a multiple of the page size.</param>
    /// <exception cref="ErrnoException">Not enough memory, or a kernel before 5.14.</exception>
    public void Populate(ulong offset, ulong length)
    {
        CheckRange(offset, length);
        using var held = new Held(this);
        // SAFETY: the range is inside this mapping.
        while (LibC.madvise(held.Pointer + offset, (size_t)length, MadvPopulateWrite) < 0)
        {
            if (Errnos.Last != Errnos.Eintr)
                throw ErrnoException.FromLastError("madvise(MADV_POPULATE_WRITE)");
        }
    }

    /// <summary>Asks for huge pages on first use (MADV_HUGEPAGE). For shared memory the host decides: only with "advise" in
    /// /sys/kernel/mm/transparent_hugepage/shmem_enabled does it listen.</summary>
    public void PreferHugePages()
    {
        using var held = new Held(this);
        // SAFETY: the range is this mapping. A kernel without huge pages refuses, and then there are none.
        _ = LibC.madvise(held.Pointer, (size_t)Length, LibC.MADV_HUGEPAGE);
    }

    /// <summary>Leaves the mapping out of core dumps (MADV_DONTDUMP): a dump of this process is small, and has none of it.</summary>
    public void LeaveOutOfCoreDumps()
    {
        using var held = new Held(this);
        // SAFETY: the range is this mapping. Every kernel since 3.4 does it.
        _ = LibC.madvise(held.Pointer, (size_t)Length, LibC.MADV_DONTDUMP);
    }

    /// <summary>Gathers a part of the mapping into huge pages (MADV_COLLAPSE), as far as this kernel can. Contents stay.</summary>
    /// <param name="offset">Where it begins; a multiple of the huge page size, as is the mapping.</param>
    /// <param name="length">Bytes; a multiple of the huge page size.</param>
    /// <returns>0 when all of it is in huge pages now, else the negated error number (madvise(2)).</returns>
    public int TryCollapse(ulong offset, ulong length)
    {
        CheckRange(offset, length);
        using var held = new Held(this);
        // SAFETY: the range is inside this mapping.
        return LibC.madvise(held.Pointer + offset, (size_t)length, MadvCollapse) == 0 ? 0 : -Errnos.Last;
    }

    /// <summary>Gives the pages of the whole mapping back to the kernel; it reads as zeros afterwards.</summary>
    /// <exception cref="ErrnoException">madvise(2) failed.</exception>
    public void Discard()
    {
        using var held = new Held(this);
        // SAFETY: the range is this mapping; nobody holds a span over it while the machine is being reset.
        if (LibC.madvise(held.Pointer, (size_t)Length, LibC.MADV_REMOVE) < 0)
            throw ErrnoException.FromLastError("madvise(MADV_REMOVE)");
    }

    /// <summary>Maps another part of the file at the same addresses, at one stroke: whoever reads meanwhile sees the old page or the new.</summary>
    /// <param name="fd">The file.</param>
    /// <param name="offset">Where the part begins; a multiple of the page size. It is as long as this mapping.</param>
    /// <exception cref="ErrnoException">mmap(2) failed; the mapping is as it was.</exception>
    public void Replace(FileDescriptor fd, ulong offset)
    {
        using var held = new Held(this);
        // SAFETY: MAP_FIXED over exactly the range that this mapping owns.
        Map(held.Pointer, Length, MappingAccess.SharedReadWrite, fd, LibC.MAP_FIXED, offset);
    }

    /// <summary>Gives the memory back and keeps its addresses, until this object is collected. A thread that still reads there finds zeros.</summary>
    internal void Retire()
    {
        using var held = new Held(this);
        try
        {
            // SAFETY: MAP_FIXED over exactly the range that this mapping owns.
            Map(held.Pointer, Length, MappingAccess.PrivateZeros, null, LibC.MAP_ANONYMOUS | LibC.MAP_FIXED, 0);
        }
        catch (ErrnoException)
        {
            Dispose();   // a host that lends no addresses: they go, too
        }
    }

    private void CheckRange(ulong offset, ulong length)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(offset, Length);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(length, Length - offset);
    }

    private static void* Map(void* address, ulong length, MappingAccess access, FileDescriptor? file, int flags, ulong offset)
    {
        if (file is null)
            return Map(address, length, access, -1, flags, offset);
        using HeldDescriptor held = file.Hold();
        return Map(address, length, access, held.Number, flags, offset);
    }

    private static void* Map(void* address, ulong length, MappingAccess access, int number, int flags, ulong offset)
    {
        flags |= access switch
        {
            MappingAccess.SharedReadWriteLazy => LibC.MAP_SHARED | LibC.MAP_NORESERVE,
            MappingAccess.SharedReadWrite or MappingAccess.SharedReadOnly => LibC.MAP_SHARED,
            MappingAccess.Reserved or MappingAccess.PrivateZeros => LibC.MAP_PRIVATE | LibC.MAP_NORESERVE,
            _ => LibC.MAP_PRIVATE,
        };
        int protection = access switch
        {
            MappingAccess.Reserved => LibC.PROT_NONE,
            MappingAccess.PrivateReadOnly or MappingAccess.SharedReadOnly => LibC.PROT_READ,
            _ => LibC.PROT_READ | LibC.PROT_WRITE,
        };
        // SAFETY: without MAP_FIXED a new mapping, at an address of the kernel's choice, touches no memory of ours; with it, the caller
        // owns the range.
        void* result = LibC.mmap(address, (size_t)length, protection, flags, number, (long)offset);
        return result != LibC.MAP_FAILED ? result : throw ErrnoException.FromLastError($"mmap({length} bytes)");
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle() => LibC.munmap((void*)handle, (size_t)Length) == 0;

    // Keeps it mapped during a call: what is mapped at these addresses afterwards is somebody else's.
    private readonly ref struct Held : IDisposable
    {
        private readonly MemoryMapping _mapping;

        public Held(MemoryMapping mapping)
        {
            bool isHeld = false;
            mapping.DangerousAddRef(ref isHeld);
            _mapping = mapping;
        }

        public byte* Pointer => (byte*)_mapping.handle;

        public void Dispose() => _mapping.DangerousRelease();
    }
}

/// <summary>What a mapping may be used for.</summary>
public enum MappingAccess
{
    /// <summary>Reading; a private view of a file.</summary>
    PrivateReadOnly,

    /// <summary>Reading, shared with whoever maps the same file.</summary>
    SharedReadOnly,

    /// <summary>Reading and writing, shared with whoever maps the same file.</summary>
    SharedReadWrite,

    /// <summary>Nothing: addresses kept free.</summary>
    Reserved,

    /// <summary>Zeros, of which nobody else knows.</summary>
    PrivateZeros,

    /// <summary>As <see cref="SharedReadWrite"/>, without reserving memory ahead: more may be mapped than the host has.</summary>
    SharedReadWriteLazy,
}
