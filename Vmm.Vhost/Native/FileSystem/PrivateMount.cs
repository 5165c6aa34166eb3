using Vmm.Vhost.Native.Confinement;
using static Vmm.Vhost.Native.FileSystem.KernelCall;

namespace Vmm.Vhost.Native.FileSystem;

/// <summary>A directory as if it were mounted once more, for this process only: device nodes there open nothing, and <c>..</c> of its root is the root itself (open_tree(2) and
/// mount_setattr(2), Linux 5.12).</summary>
public static unsafe class PrivateMount
{
    private const uint Clone = 1, CloseOnExec = 0x80000;        // OPEN_TREE_CLONE and OPEN_TREE_CLOEXEC of linux/mount.h
    private const uint Recursive = 0x8000, EmptyPath = 0x1000;  // AT_RECURSIVE and AT_EMPTY_PATH of linux/fcntl.h
    private const ulong NoSetId = 2, NoDevices = 4;             // MOUNT_ATTR_NOSUID and MOUNT_ATTR_NODEV
    private const ulong Private = 1 << 18;                      // MS_PRIVATE: what is mounted there later stays out

    /// <summary>Makes it, with all that is mounted below the directory now.</summary>
    /// <param name="directory">The directory, open; it stays the caller's.</param>
    /// <returns>Its root, open by O_PATH: what is mounted there is there as long as that is open. Null where the kernel refuses: it takes CAP_SYS_ADMIN.</returns>
    public static FileDescriptor? TryMake(FileDescriptor directory)
    {
        byte empty = 0;
        using HeldDescriptor original = directory.Hold();
        long result = Do(SystemCallNumber.OpenTree, original.Number, (nint)(&empty), (nint)(Clone | CloseOnExec | Recursive | EmptyPath));
        if (result < 0)
            return null;
        var root = new FileDescriptor((int)result);
        using HeldDescriptor held = root.Hold();
        var attributes = new MountAttributes { Set = NoSetId | NoDevices, Propagation = Private };
        if (Do(SystemCallNumber.MountSetattr, held.Number, (nint)(&empty), (nint)(EmptyPath | Recursive), (nint)(&attributes), sizeof(MountAttributes)) == 0)
            return root;
        root.Dispose();
        return null;
    }

    // struct mount_attr of linux/mount.h.
    private struct MountAttributes
    {
        public ulong Set;
        public ulong Clear;
        public ulong Propagation;
        public ulong UserNamespace;
    }
}
