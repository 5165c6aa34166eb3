using System.Runtime.InteropServices;

namespace Vmm.Vhost.Native;

/// <summary>The file of a Unix socket: who may connect.</summary>
public static unsafe partial class SocketFile
{
    private const uint Unchanged = uint.MaxValue;
    private const uint OwnerAndGroup = 0x1B0;       // 0660

    /// <summary>Lets the members of a group connect, besides the owner: the file belongs to the group, and its mode is 0660.</summary>
    /// <param name="path">The file.</param>
    /// <param name="group">The group's number.</param>
    /// <exception cref="ErrnoException">The kernel refused: only root can name a group that this process is not in.</exception>
    public static void ShareWith(string path, uint group)
    {
        fixed (byte* name = FileDescriptor.NullTerminated(path))
        {
            // The group first: nobody who is not meant can connect in between.
            // SAFETY: null-terminated and pinned.
            if (ChangeOwner(name, Unchanged, group) < 0)
                throw new ErrnoException($"{path}: chown to group {group}", Marshal.GetLastPInvokeError());
            if (ChangeMode(name, OwnerAndGroup) < 0)
                throw new ErrnoException($"{path}: chmod", Marshal.GetLastPInvokeError());
        }
    }

    [LibraryImport("libc", EntryPoint = "lchown", SetLastError = true)]
    private static partial int ChangeOwner(byte* path, uint user, uint group);

    [LibraryImport("libc", EntryPoint = "chmod", SetLastError = true)]
    private static partial int ChangeMode(byte* path, uint mode);
}
