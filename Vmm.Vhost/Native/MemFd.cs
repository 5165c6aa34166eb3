using Tmds.Linux;

namespace Vmm.Vhost.Native;

/// <summary>Anonymous shared memory by memfd_create(2), sized once and sealed.</summary>
public static unsafe class MemFd
{
    private const int HugePageShift = 26;   // MFD_HUGE_SHIFT of linux/memfd.h
    private const uint NoExecSeal = 8;      // MFD_NOEXEC_SEAL, Linux 6.3

    /// <summary>Makes <paramref name="size"/> bytes of memory, sealed against shrinking, growing and further seals:
    /// a peer that truncates it would otherwise end this process by SIGBUS. It can never be executed either, where the kernel knows that: with
    /// vm.memfd_noexec=2 it refuses all others.</summary>
    /// <param name="name">Shown in /proc/PID/maps.</param>
    /// <param name="size">Bytes; a multiple of the page size in use.</param>
    /// <param name="hugePageSize">0 for normal pages, or a huge page size of this host in bytes (a power of two).</param>
    /// <exception cref="ErrnoException">The kernel refused; nothing is left open.</exception>
    public static FileDescriptor Create(string name, ulong size, ulong hugePageSize = 0)
    {
        uint flags = (uint)(LibC.MFD_CLOEXEC | LibC.MFD_ALLOW_SEALING);
        if (hugePageSize != 0)
            flags |= (uint)LibC.MFD_HUGETLB | ((uint)System.Numerics.BitOperations.Log2(hugePageSize) << HugePageShift);

        int number;
        fixed (byte* pointer = FileDescriptor.NullTerminated(name))
        {
            // SAFETY: the name is null-terminated and pinned for the call.
            number = LibC.memfd_create(pointer, flags | NoExecSeal);
            if (number < 0 && Errnos.Last == Errnos.Einval)
                number = LibC.memfd_create(pointer, flags);   // an older kernel; any other mistake is one again
        }
        if (number < 0)
            throw ErrnoException.FromLastError("memfd_create");

        var fd = new FileDescriptor(number);
        try
        {
            if (LibC.ftruncate(number, (long)size) < 0)
                throw ErrnoException.FromLastError($"ftruncate(memfd, {size})");
            if (LibC.fcntl(number, LibC.F_ADD_SEALS, LibC.F_SEAL_SHRINK | LibC.F_SEAL_GROW | LibC.F_SEAL_SEAL) < 0)
                throw ErrnoException.FromLastError("fcntl(F_ADD_SEALS)");
            return fd;
        }
        catch
        {
            fd.Dispose();
            throw;
        }
    }
}
