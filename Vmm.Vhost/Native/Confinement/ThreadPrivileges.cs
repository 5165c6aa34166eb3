using System.Runtime.InteropServices;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Vhost.Native.Confinement;

/// <summary>What a thread gives up for good, for itself and for those that it starts.</summary>
public static unsafe partial class ThreadPrivileges
{
    private const int SetGroups = 116, SetResUid = 117, SetResGid = 119;    // of x86-64 (asm/unistd_64.h)
    private const int PrSetNoNewPrivs = 38;         // linux/prctl.h
    private const uint CapabilityVersion3 = 0x20080522;     // linux/capability.h
    private const int CapabilityWords = 3;          // of each of the two struct __user_cap_data_struct: effective, permitted, inheritable

    /// <summary>Gives up all that the kernel lets a thread give up for itself: new privileges, files (Landlock) and capabilities.</summary>
    /// <param name="rules">What stays of the file system (<see cref="Landlock.MakeRules"/>); null where there is no Landlock.</param>
    /// <param name="kept">The capabilities that stay, as far as the thread has them.</param>
    /// <exception cref="ErrnoException">The kernel refused.</exception>
    public static void GiveUp(FileDescriptor? rules, ulong kept = 0)
    {
        GiveUpNewOnes();
        if (rules is not null)
            Landlock.RestrictThread(rules);
        Keep(kept);
    }

    /// <summary>Becomes a user without further groups. The C library would make all threads do it at once; this is for the calling one and those that it
    /// starts.</summary>
    /// <param name="user">The user's number.</param>
    /// <param name="group">The group's number.</param>
    /// <exception cref="ErrnoException">The kernel refused: this needs root.</exception>
    public static void Become(uint user, uint group)
    {
        Checked(SystemCall(SetGroups, 0, 0, 0), "setgroups");
        Checked(SystemCall(SetResGid, group, group, group), "setresgid");
        Checked(SystemCall(SetResUid, user, user, user), "setresuid");
    }

    /// <summary>Makes a directory the root of the file system for the whole process (chroot(2)).</summary>
    /// <exception cref="ErrnoException">The kernel refused: this needs root, and the directory has to be there.</exception>
    public static void ChangeRoot(string directory)
    {
        fixed (byte* path = FileDescriptor.NullTerminated(directory), root = "/\0"u8)
        {
            // SAFETY: both are null-terminated and pinned.
            if (ChRoot(path) < 0)
                throw new ErrnoException($"chroot({directory})", Marshal.GetLastPInvokeError());
            if (ChDir(root) < 0)
                throw new ErrnoException("chdir(/)", Marshal.GetLastPInvokeError());
        }
    }

    /// <summary>Makes a directory that is open the root of the file system for the whole process (chroot(2)). The current directory stays what it is.</summary>
    /// <exception cref="ErrnoException">The kernel refused: this needs root.</exception>
    public static void ChangeRoot(FileDescriptor directory)
    {
        using HeldDescriptor held = directory.Hold();
        fixed (byte* here = ".\0"u8)
        {
            // SAFETY: the path is null-terminated and pinned.
            int before = Open(here, FileTree.PathOnly | FileTree.CloseOnExec);
            if (before < 0)
                throw ErrnoException.FromLastError("cannot open the current directory");
            using var current = new FileDescriptor(before);
            using HeldDescriptor heldCurrent = current.Hold();
            Checked(FChDir(held.Number), "fchdir");
            Checked(ChRoot(here), "chroot");
            Checked(FChDir(heldCurrent.Number), "fchdir");
        }
    }

    /// <summary>From now on no program that the calling thread executes gains privileges by set-user-id bits or file capabilities (no_new_privs).
    /// A thread with no_new_privs may install seccomp filters and Landlock rules without being root.</summary>
    /// <exception cref="ErrnoException">prctl(2) failed.</exception>
    public static void GiveUpNewOnes()
    {
        if (Prctl(PrSetNoNewPrivs, 1, 0, 0, 0) < 0)
            throw new ErrnoException("prctl(PR_SET_NO_NEW_PRIVS)", Marshal.GetLastPInvokeError());
    }

    /// <summary>Capabilities of linux/capability.h, as bits: those that a process which acts for many users on files may keep.</summary>
    public const ulong Chown = 1 << 0, DacOverride = 1 << 1, Fowner = 1 << 3, Fsetid = 1 << 4, SetGid = 1 << 6, SetUid = 1 << 7, Mknod = 1 << 27, Setfcap = 1UL << 31;

    /// <summary>What the calling thread may have (its permitted set); 0 where the kernel does not say.</summary>
    public static ulong Permitted
    {
        get
        {
            var header = new CapabilityHeader { Version = CapabilityVersion3 };
            uint* data = stackalloc uint[2 * CapabilityWords];
            // SAFETY: on the stack, as many structures as version 3 has.
            return CapGet(&header, data) < 0 ? 0 : data[1] | (ulong)data[CapabilityWords + 1] << 32;
        }
    }

    /// <summary>Gives up all capabilities (capabilities(7)) but those in <paramref name="kept"/>, as far as the thread has them. Root without any is a user
    /// like others, to whom root's files belong.</summary>
    /// <exception cref="ErrnoException">capset(2) failed.</exception>
    public static void Keep(ulong kept)
    {
        kept = kept == 0 ? 0 : kept & Permitted;
        int errno = Set(kept, kept);
        if (errno != 0)
            throw new ErrnoException("capset", errno);
    }

    /// <summary>Sets which of the capabilities that the calling thread may have count. Of all that it may have only those in <paramref name="permitted"/> are left.</summary>
    /// <returns>0, or the error number.</returns>
    public static int Set(ulong effective, ulong permitted)
    {
        var header = new CapabilityHeader { Version = CapabilityVersion3 };
        uint* data = stackalloc uint[] { (uint)effective, (uint)permitted, 0, (uint)(effective >> 32), (uint)(permitted >> 32), 0 };
        // SAFETY: on the stack, as many structures as version 3 has.
        return CapSet(&header, data) < 0 ? Marshal.GetLastPInvokeError() : 0;
    }

    private static void Checked(nint result, string operation)
    {
        if (result < 0)
            throw new ErrnoException(operation, Marshal.GetLastPInvokeError());
    }

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static partial nint SystemCall(nint number, nuint first, nuint second, nuint third);

    [LibraryImport("libc", EntryPoint = "chroot", SetLastError = true)]
    private static partial int ChRoot(byte* path);

    [LibraryImport("libc", EntryPoint = "chdir", SetLastError = true)]
    private static partial int ChDir(byte* path);

    [LibraryImport("libc", EntryPoint = "fchdir", SetLastError = true)]
    private static partial int FChDir(int directory);

    [LibraryImport("libc", EntryPoint = "open", SetLastError = true)]
    private static partial int Open(byte* path, int flags);

    [LibraryImport("libc", EntryPoint = "prctl", SetLastError = true)]
    private static partial int Prctl(int option, nuint argument2, nuint argument3, nuint argument4, nuint argument5);

    [LibraryImport("libc", EntryPoint = "capget", SetLastError = true)]
    private static partial int CapGet(CapabilityHeader* header, uint* data);

    [LibraryImport("libc", EntryPoint = "capset", SetLastError = true)]
    private static partial int CapSet(CapabilityHeader* header, uint* data);

    // struct __user_cap_header_struct of linux/capability.h.
    private struct CapabilityHeader
    {
        public uint Version;
        public int Thread;      // 0: the calling one
    }
}
