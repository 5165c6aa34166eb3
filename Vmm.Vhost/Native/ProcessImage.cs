using System.Diagnostics.CodeAnalysis;
using System.Runtime.InteropServices;
using Tmds.Linux;

namespace Vmm.Vhost.Native;

/// <summary>The program that this process runs.</summary>
public static unsafe partial class ProcessImage
{
    private const int SigPipe = 13;

    /// <summary>Runs another program in this process, which keeps its id, its parent and its standard streams, and nothing else of its descriptors.</summary>
    /// <param name="program">Its path.</param>
    /// <param name="arguments">Its arguments, without its name, for the number of the descriptor that it inherits.</param>
    /// <param name="inherited">What it inherits. It becomes blocking, as programs expect.</param>
    /// <exception cref="ErrnoException">The program cannot be run. This process goes on.</exception>
    [DoesNotReturn]
    public static void Replace(string program, Func<int, IReadOnlyList<string>> arguments, FileDescriptor inherited)
    {
        using HeldDescriptor held = inherited.Hold();
        int flags = LibC.fcntl(held.Number, LibC.F_GETFL);
        // All others close themselves.
        if (flags < 0 || LibC.fcntl(held.Number, LibC.F_SETFL, flags & ~LibC.O_NONBLOCK) < 0 || LibC.fcntl(held.Number, LibC.F_SETFD, 0) < 0)
            throw ErrnoException.FromLastError("fcntl");
        SignalDisposition.Restore(SigPipe);     // the runtime ignores it
        int errno = Execute([program, .. arguments(held.Number)]);
        SignalDisposition.Ignore(SigPipe);
        _ = LibC.fcntl(held.Number, LibC.F_SETFD, LibC.FD_CLOEXEC);
        throw new ErrnoException($"cannot start {program}", errno);
    }

    private static int Execute(string[] words)
    {
        byte*[] pointers = new byte*[words.Length + 1];     // with the null at the end that the kernel looks for
        try
        {
            for (int i = 0; i < words.Length; i++)
            {
                byte[] bytes = FileDescriptor.NullTerminated(words[i]);
                pointers[i] = (byte*)Marshal.AllocCoTaskMem(bytes.Length);
                Marshal.Copy(bytes, 0, (nint)pointers[i], bytes.Length);
            }
            // SAFETY: strings that nobody frees meanwhile, and an array that is pinned.
            fixed (byte** argv = pointers)
                _ = Execute(pointers[0], argv);
            return Marshal.GetLastPInvokeError();
        }
        finally
        {
            foreach (byte* pointer in pointers)
                Marshal.FreeCoTaskMem((nint)pointer);
        }
    }

    // With the environment as it is.
    [LibraryImport("libc", EntryPoint = "execv", SetLastError = true)]
    private static partial int Execute(byte* path, byte** arguments);
}
