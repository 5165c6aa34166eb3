using System.Runtime.InteropServices;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Vhost.Native.Confinement;

/// <summary>Takes the file system away from a thread, and all that it starts, but for what is allowed. Descriptors that are open stay
/// open. The kernel's version decides how much there is to take: nothing is assumed that it does not know (Linux
/// Documentation/userspace-api/landlock.rst).</summary>
public static unsafe partial class Landlock
{
    private const int CreateRuleset = 444, AddRule = 445, RestrictSelf = 446;   // the same on every architecture
    private const uint VersionFlag = 1;
    private const int PathBeneath = 1;

    // Rights by the version of the interface that brought them (landlock.rst, "Previous limitations").
    private const ulong FileSystem1 = (1UL << 13) - 1;
    private const ulong Refer2 = 1UL << 13;
    private const ulong Truncate3 = 1UL << 14;
    private const ulong Tcp4 = 3;
    private const ulong DeviceIoctl5 = 1UL << 15;
    private const ulong ConnectToSocket9 = 1UL << 16;   // LANDLOCK_ACCESS_FS_RESOLVE_UNIX
    private const ulong Udp10 = 12;                     // to bind a socket, to connect it, and to send elsewhere than it is connected to
    private const ulong ReadFile = 1UL << 2, ReadDirectory = 1UL << 3;  // LANDLOCK_ACCESS_FS_READ_FILE and _READ_DIR
    private const ulong ReadTree = ReadFile | ReadDirectory;
    private const ulong Execute = 1UL << 0;
    private const ulong AbstractSockets6 = 1;       // the other scope, signals, would keep the runtime from suspending its own threads

    /// <summary>The version of the kernel's interface; 0 without Landlock.</summary>
    public static int Version
    {
        get
        {
            nint result = SystemCall(CreateRuleset, 0, 0, VersionFlag);
            return result > 0 ? (int)result : 0;
        }
    }

    /// <summary>Makes a set of rules for <see cref="RestrictThread"/>: nothing of the file system; from version 4 on no new TCP connections; from
    /// version 6 on no abstract sockets; from version 9 on no Unix sockets but those in <paramref name="socketDirectories"/>; from version 10 on no
    /// UDP address but the one that a socket is connected to.</summary>
    /// <param name="socketDirectories">Directories, which must exist, where sockets may be connected to.</param>
    /// <param name="tree">A directory in which files may be opened, made and removed; null for none.</param>
    /// <param name="isTreeReadOnly">Whether they may only be read there. Of the whole file system these are not the files in /dev, /proc and /sys, and none that come to be right below
    /// the root later.</param>
    /// <returns>Null where <see cref="Version"/> is 0; with a tree that may be written to also where it is 1, which lets no file be moved to another directory.</returns>
    /// <exception cref="ErrnoException">The kernel refused.</exception>
    public static FileDescriptor? MakeRules(IEnumerable<string> socketDirectories, FileDescriptor? tree = null, bool isTreeReadOnly = false)
    {
        int version = Version;
        if (version == 0 || (version == 1 && tree is not null && !isTreeReadOnly))
            return null;
        var attributes = new RulesetAttributes
        {
            FileSystem = FileSystem1 | (version >= 2 ? Refer2 : 0) | (version >= 3 ? Truncate3 : 0) | (version >= 5 ? DeviceIoctl5 : 0)
                | (version >= 9 ? ConnectToSocket9 : 0),
            Network = (version >= 4 ? Tcp4 : 0) | (version >= 10 ? Udp10 : 0),
            Scoped = version >= 6 ? AbstractSockets6 : 0,
        };
        nuint size = version >= 6 ? (nuint)sizeof(RulesetAttributes) : version >= 4 ? 16u : 8u;
        // SAFETY: a struct on the stack, of which the kernel reads the size given.
        var rules = new FileDescriptor((int)Checked(SystemCall(CreateRuleset, (nuint)(&attributes), size, 0), "landlock_create_ruleset"));
        try
        {
            using HeldDescriptor held = rules.Hold();
            // An older kernel knows of no such right, and lets all sockets be connected to.
            foreach (string directory in version >= 9 ? socketDirectories : [])
                Allow(in held, directory, ConnectToSocket9);
            if (tree is not null && isTreeReadOnly && IsWholeFileSystem(tree))
                AllowReadingAll(in held, tree);
            else if (tree is not null)
                Allow(in held, tree, isTreeReadOnly ? ReadTree : attributes.FileSystem & ~(Execute | DeviceIoctl5 | ConnectToSocket9));
            return rules;
        }
        catch
        {
            rules.Dispose();
            throw;
        }
    }

    /// <summary>Puts rules in force for the calling thread and those that it starts, for good. It needs
    /// <see cref="ThreadPrivileges.GiveUpNewOnes"/> before.</summary>
    /// <exception cref="ErrnoException">The kernel refused: the thread is not confined.</exception>
    public static void RestrictThread(FileDescriptor rules)
    {
        using HeldDescriptor held = rules.Hold();
        Checked(SystemCall(RestrictSelf, (nuint)held.Number, 0, 0), "landlock_restrict_self");
    }

    // All directories may be listed. The files of devices and of the kernel are not to be opened: terminals, disks, what the kernel says to its user.
    private static void AllowReadingAll(in HeldDescriptor ruleset, FileDescriptor root)
    {
        Allow(in ruleset, root, ReadDirectory);
        foreach (FileSystemInfo entry in new DirectoryInfo("/").EnumerateFileSystemInfos())
        {
            if (entry.LinkTarget is not null || entry.Name is "dev" or "proc" or "sys")
                continue;
            try
            {
                Allow(in ruleset, entry.FullName, entry is DirectoryInfo ? ReadTree : ReadFile);
            }
            catch (ErrnoException e) when (e.Errno == Errnos.Enoent)
            {
                // It has just been removed.
            }
        }
    }

    private static bool IsWholeFileSystem(FileDescriptor tree)
    {
        using FileDescriptor root = FileTree.OpenDirectory("/");
        using HeldDescriptor heldRoot = root.Hold(), heldTree = tree.Hold();
        return FileTree.GetStatus(in heldRoot, out FileStatus one) == 0 && FileTree.GetStatus(in heldTree, out FileStatus other) == 0
            && one.IsSameFile(in other);
    }

    private static void Allow(in HeldDescriptor ruleset, string path, ulong access)
    {
        FileDescriptor place;
        fixed (byte* name = FileDescriptor.NullTerminated(path))
        {
            // SAFETY: the name is null-terminated and pinned.
            int number = Open(name, FileTree.PathOnly | FileTree.CloseOnExec);
            place = number >= 0 ? new FileDescriptor(number) : throw new ErrnoException($"cannot open {path}", Marshal.GetLastPInvokeError());
        }
        using (place)
            Allow(in ruleset, place, access);
    }

    private static void Allow(in HeldDescriptor ruleset, FileDescriptor place, ulong access)
    {
        using HeldDescriptor held = place.Hold();
        var rule = new PathBeneathAttributes { Allowed = access, Parent = held.Number };
        // SAFETY: a struct on the stack, packed as the kernel wants it.
        Checked(SystemCall(AddRule, (nuint)ruleset.Number, PathBeneath, (nuint)(&rule)), "landlock_add_rule");
    }

    private static nint Checked(nint result, string name) =>
        result >= 0 ? result : throw new ErrnoException(name, Marshal.GetLastPInvokeError());

    private static nint SystemCall(nint number, nuint first, nuint second, nuint third) => SystemCall(number, first, second, third, 0);

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static partial nint SystemCall(nint number, nuint first, nuint second, nuint third, nuint fourth);

    [LibraryImport("libc", EntryPoint = "open", SetLastError = true)]
    private static partial int Open(byte* path, int flags);

    private struct RulesetAttributes
    {
        public ulong FileSystem;
        public ulong Network;
        public ulong Scoped;
    }

    [StructLayout(LayoutKind.Sequential, Pack = 1)]
    private struct PathBeneathAttributes
    {
        public ulong Allowed;
        public int Parent;
    }
}
