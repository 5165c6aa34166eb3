using System.Runtime.InteropServices;
using Vmm.Vhost.Native.Confinement;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Vhost.Native;

/// <summary>The process that started this one.</summary>
public static partial class ParentProcess
{
    private const int SetDeathSignal = 1;   // PR_SET_PDEATHSIG (linux/prctl.h)
    private const int Kill = 9;

    /// <summary>From now on the kernel kills this process when its parent ends, also when that is killed itself (PR_SET_PDEATHSIG of prctl(2)). The parent's thread that started
    /// this process must last as long as the parent: it is that thread which the kernel looks at.</summary>
    /// <param name="id">The parent's id. If it is not this process's parent any more, this process is killed at once.</param>
    /// <exception cref="ErrnoException">The kernel refused.</exception>
    public static void EndWith(int id)
    {
        long result = KernelCall.Do(SystemCallNumber.Prctl, SetDeathSignal, Kill);
        if (result < 0)
            throw new ErrnoException("prctl(PR_SET_PDEATHSIG)", (int)-result);
        if (GetParentId() != id)
            FatalSignal.Raise(Kill);
    }

    [LibraryImport("libc", EntryPoint = "getppid")]
    private static partial int GetParentId();
}
