using System.Runtime.InteropServices;
using Vmm.Vhost.Native.Confinement;
using static Vmm.Vhost.Native.FileSystem.KernelCall;

namespace Vmm.Vhost.Native.FileSystem;

/// <summary>As whom the calling thread, and no other, makes files. The C library's functions of these names change all threads.</summary>
public static unsafe partial class ThreadIdentity
{
    /// <summary>Whether this process may take on other identities: it is root with CAP_SETUID and CAP_SETGID.</summary>
    public static bool CanChange => Environment.IsPrivilegedProcess
        && (ThreadPrivileges.Permitted & (ThreadPrivileges.SetUid | ThreadPrivileges.SetGid)) == (ThreadPrivileges.SetUid | ThreadPrivileges.SetGid);

    /// <summary>setfsuid(2) and setfsgid(2): new files belong to these. As long as the user is not 0, the calling thread does without the capabilities
    /// over files, too.</summary>
    /// <returns>Whether the kernel did it.</returns>
    public static bool TrySet(uint user, uint group)
    {
        // The group first: for another user's id the thread no longer needs the right to change it, but going back, it does.
        Do(SystemCallNumber.Setfsgid, (nint)group);
        Do(SystemCallNumber.Setfsuid, (nint)user);
        // They return what was in force before, even where they fail; -1 changes nothing.
        return (uint)Do(SystemCallNumber.Setfsuid, -1) == user && (uint)Do(SystemCallNumber.Setfsgid, -1) == group;
    }

    /// <summary>setgroups(2) with one group, or none.</summary>
    /// <returns>0, or a negated error number.</returns>
    public static int SetGroup(uint? group)
    {
        uint one = group ?? 0;
        return (int)Do(SystemCallNumber.Setgroups, group is null ? 0 : 1, (nint)(&one));
    }

    /// <summary>Makes root's group the only one of the whole process.</summary>
    /// <exception cref="ErrnoException">It may not, or there is no such group in its user namespace.</exception>
    public static void BecomeOfRootsGroup()
    {
        if (SetGroups(0, null) < 0)
            throw new ErrnoException("setgroups", Marshal.GetLastPInvokeError());
        if (SetGroupIds(0, 0, 0) < 0)
            throw new ErrnoException("setresgid", Marshal.GetLastPInvokeError());
    }

    [LibraryImport("libc", EntryPoint = "setgroups", SetLastError = true)]
    private static partial int SetGroups(nuint count, uint* groups);

    [LibraryImport("libc", EntryPoint = "setresgid", SetLastError = true)]
    private static partial int SetGroupIds(uint real, uint effective, uint saved);
}
