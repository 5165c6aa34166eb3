using Vmm.Vhost.Native;

namespace Vmm.Vhost.User.Backend;

/// <summary>A part of a front-end's file, mapped: the mapping is of whole pages, and the part begins somewhere in it.</summary>
/// <param name="Mapping">The mapping.</param>
/// <param name="Start">Where the part begins in it.</param>
internal readonly record struct SharedFile(MemoryMapping Mapping, ulong Start)
{
    private const ulong LargestPage = 1 << 30;

    /// <summary>Maps <paramref name="size"/> bytes at <paramref name="offset"/> of <paramref name="file"/>, which stays the caller's.</summary>
    /// <exception cref="ViolationException">The part is empty or wraps.</exception>
    /// <exception cref="RefusedException">It is no file, is too short, or cannot be mapped.</exception>
    /// <remarks>A front-end that truncates its file later makes this process die of SIGBUS when the memory is touched: a server of
    /// front-ends that it does not trust needs a process for each.</remarks>
    public static SharedFile Map(FileDescriptor file, ulong offset, ulong size, string name)
    {
        if (size == 0 || offset + size < offset)
            throw new ViolationException($"{name} is empty or wraps");
        if (!FileKind.TryGetSize(file, out ulong fileSize, out ulong page))
            throw new RefusedException($"{name} is no file");
        if (offset + size > fileSize)
            throw new RefusedException($"{name} ends behind its file of {fileSize} bytes");
        // Huge pages are mapped whole; what lies around the part is never touched.
        ulong smallest = (ulong)Environment.SystemPageSize;
        if (page < smallest || page > LargestPage || (page & (page - 1)) != 0)
            page = smallest;
        ulong first = Align.Down(offset, page);
        ulong length = Align.Up(offset - first + size, page);
        try
        {
            MemoryMapping mapping = MemoryMapping.Map(file, length, MappingAccess.SharedReadWriteLazy, first);
            mapping.LeaveOutOfCoreDumps();      // it is the guest's
            return new SharedFile(mapping, offset - first);
        }
        catch (ErrnoException e)
        {
            throw new RefusedException($"{name}: {e.Message}");
        }
    }
}
