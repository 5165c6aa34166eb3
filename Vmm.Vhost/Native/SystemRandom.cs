using System.Runtime.InteropServices;

namespace Vmm.Vhost.Native;

/// <summary>The kernel's random numbers (getrandom(2)), which nobody can guess. The base class library's generator for secrets loads OpenSSL when it is
/// first used, and ends the process where there is none.</summary>
public static unsafe partial class SystemRandom
{
    private const int MaxRequest = 256;     // what comes all at once

    /// <summary>64 random bits.</summary>
    /// <exception cref="ErrnoException">The system call failed.</exception>
    public static ulong NextUInt64()
    {
        ulong value = 0;
        Fill(MemoryMarshal.AsBytes(new Span<ulong>(ref value)));
        return value;
    }

    /// <summary>Fills <paramref name="target"/> with random bytes.</summary>
    /// <exception cref="ErrnoException">The system call failed.</exception>
    public static void Fill(Span<byte> target)
    {
        while (!target.IsEmpty)
        {
            nint count;
            // SAFETY: pinned for the call, which writes at most that many bytes.
            fixed (byte* pointer = target)
                count = GetRandom(pointer, (nuint)Math.Min(target.Length, MaxRequest), 0);
            int errno = Marshal.GetLastPInvokeError();
            if (count > 0)
                target = target[(int)count..];
            else if (errno != Errnos.Eintr)   // soon after the host's boot the call waits for entropy, and a signal may end that
                throw new ErrnoException("getrandom", errno);
        }
    }

    [LibraryImport("libc", EntryPoint = "getrandom", SetLastError = true)]
    private static partial nint GetRandom(void* buffer, nuint length, uint flags);
}
