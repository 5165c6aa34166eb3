using Tmds.Linux;

namespace Vmm.Vhost.Native;

/// <summary>The two ends of a pipe (pipe(2)), close-on-exec.</summary>
public static unsafe class PipePair
{
    /// <summary>Makes a pipe whose ends wait.</summary>
    /// <exception cref="ErrnoException">There are no descriptors left.</exception>
    public static (FileDescriptor Reading, FileDescriptor Writing) Create()
    {
        int* ends = stackalloc int[2];
        // SAFETY: two integers on the stack.
        return LibC.pipe2(ends, LibC.O_CLOEXEC) == 0
            ? (new FileDescriptor(ends[0]), new FileDescriptor(ends[1]))
            : throw ErrnoException.FromLastError("pipe2");
    }
}
