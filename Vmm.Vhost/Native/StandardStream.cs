using Tmds.Linux;

namespace Vmm.Vhost.Native;

/// <summary>The standard streams of the process, as it was started.</summary>
public static class StandardStream
{
    // Asked once, before this process is confined: then it may not ask any more, and still writes.
    private static readonly bool[] s_isInherited = [IsInherited(0), IsInherited(1), IsInherited(2)];

    /// <summary>Standard input, or null if the process was started without.</summary>
    public static FileDescriptor? Input => Inherited(0);

    /// <summary>Standard output, or null if the process was started without.</summary>
    public static FileDescriptor? Output => Inherited(1);

    /// <summary>Standard error, or null if the process was started without.</summary>
    public static FileDescriptor? Error => Inherited(2);

    /// <summary>The same by its number: 0, 1 or 2.</summary>
    public static FileDescriptor? Of(int number) => Inherited(number);

    /// <summary>Gives the number of each stream that the process was started without to /dev/null, which counts as none here. Otherwise the first files that it opens get these
    /// numbers, and whatever is written to a standard stream. To be called first in a program.</summary>
    public static unsafe void FillMissing()
    {
        fixed (byte* path = "/dev/null\0"u8)
        {
            // open(2) takes the lowest number that is free.
            for (int number = 0; number <= 2; number++)
            {
                if (!s_isInherited[number] && LibC.fcntl(number, LibC.F_GETFD) < 0)
                    _ = LibC.open(path, LibC.O_RDWR | LibC.O_CLOEXEC, 0);
            }
        }
    }

    /// <summary>Puts <paramref name="other"/> in the place of stream <paramref name="number"/> (0, 1 or 2): whoever is at the other end of a pipe sees that
    /// it has ended, and the number is nobody else's.</summary>
    /// <exception cref="ErrnoException">dup2(2) failed.</exception>
    public static void Replace(int number, FileDescriptor other)
    {
        using HeldDescriptor held = other.Hold();
        // Not close-on-exec, as the stream was not: dup2(2) does not copy that flag.
        if (LibC.dup2(held.Number, number) < 0)
            throw ErrnoException.FromLastError("dup2");
    }

    private static FileDescriptor? Inherited(int number) => s_isInherited[number] ? new FileDescriptor(number, ownsHandle: false) : null;

    // A process that is started with a closed standard stream gives its number to whatever it opens first. What was inherited cannot
    // be close-on-exec, and all that we and the runtime open is.
    private static bool IsInherited(int number)
    {
        int flags = LibC.fcntl(number, LibC.F_GETFD);
        return flags >= 0 && (flags & LibC.FD_CLOEXEC) == 0;
    }
}
