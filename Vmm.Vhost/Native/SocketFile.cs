using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Vhost.Native;

/// <summary>The file of a Unix socket. Its group and mode say which users may connect.</summary>
public static class SocketFile
{
    private const uint OwnerAndGroup = 0x1B0;       // 0660
    private const uint SocketType = 0xC000;         // S_IFSOCK of linux/stat.h

    /// <summary>Lets the members of a group connect, besides the owner: the file belongs to the group, and its mode is 0660.</summary>
    /// <param name="path">The file. Whoever may write to its directory can put another one in its place; so it is opened once, and must be a socket of this process's user.</param>
    /// <param name="group">The group's number.</param>
    /// <exception cref="ErrnoException">The kernel refused: only root can name a group that this process is not in.</exception>
    /// <exception cref="IOException">It is no such socket.</exception>
    public static void ShareWith(string path, uint group)
    {
        using FileDescriptor directory = FileTree.OpenDirectory(Path.GetDirectoryName(RealPath.Absolute(path))!);
        using FileDescriptor links = FileTree.OpenDirectory("/proc/self/fd");
        using HeldDescriptor heldDirectory = directory.Hold(), heldLinks = links.Hold();
        int number = FileTree.Open(in heldDirectory, FileDescriptor.NullTerminated(Path.GetFileName(path)), FileTree.PathOnly);
        Check(number, "cannot open");
        using var file = new FileDescriptor(number);
        using HeldDescriptor held = file.Hold();
        Check(FileTree.GetStatus(in held, out FileStatus status), "statx");
        if (status.Type != SocketType || status.UserId != FileOwner.User)
            throw new IOException($"{path} is not the socket that was made there: another program has replaced it");
        // The group before the mode: between the two calls no user can connect who should not.
        Check(FileTree.ChangeOwner(in held, uint.MaxValue, group), $"chown to group {group}");
        Check(FileTree.ChangeMode(in heldLinks, in held, OwnerAndGroup), "chmod");

        void Check(int result, string call)
        {
            if (result < 0)
                throw new ErrnoException($"{path}: {call}", -result);
        }
    }
}
