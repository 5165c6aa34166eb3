using Tmds.Linux;

namespace Vmm.Vhost.Native;

/// <summary>Standard input and output of the process, as it was started.</summary>
public static class StandardStream
{
    /// <summary>Standard input, or null if the process was started without.</summary>
    public static FileDescriptor? Input => Inherited(0);

    /// <summary>Standard output, or null if the process was started without.</summary>
    public static FileDescriptor? Output => Inherited(1);

    // A process that is started with a closed standard stream gives its number to whatever it opens first. What was inherited cannot
    // be close-on-exec, and all that we and the runtime open is.
    private static FileDescriptor? Inherited(int number)
    {
        int flags = LibC.fcntl(number, LibC.F_GETFD);
        return flags >= 0 && (flags & LibC.FD_CLOEXEC) == 0 ? new FileDescriptor(number, ownsHandle: false) : null;
    }
}
