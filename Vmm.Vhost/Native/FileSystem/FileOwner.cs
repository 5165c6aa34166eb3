using Tmds.Linux;

namespace Vmm.Vhost.Native.FileSystem;

/// <summary>Compares the owner and the mode of a file with the user of this process: may somebody else change the file?</summary>
public static class FileOwner
{
    private const uint WritableByOthers = 0x12;     // 0022
    private const uint WritableByGroup = 0x10;      // 0020
    private const uint WritableByAll = 0x02;        // 0002
    private const uint Sticky = 0x200;              // S_ISVTX

    /// <summary>The number of the user that this process acts as.</summary>
    public static uint User => (uint)LibC.geteuid();

    /// <summary>The number of the group that this process acts as.</summary>
    public static uint Group => (uint)LibC.getegid();

    /// <summary>Whether a file is of the user that this process acts as, and nobody else may write to it.</summary>
    /// <param name="user">The file's owner.</param>
    /// <param name="mode">Its mode.</param>
    public static bool IsOwn(uint user, uint mode) => user == User && (mode & WritableByOthers) == 0;

    /// <summary>Whether this process may act on what it finds in a file or a directory: it is of the user that this process acts as, or of root, and no other user may write to
    /// it. A group that has the user's own number is taken to be his alone (a user private group): with such groups files are writable by the group by default.</summary>
    /// <param name="status">The file or directory.</param>
    /// <param name="allowsSticky">Whether a directory is accepted that others may write to, but in which they may not remove or rename what is not theirs, such as /tmp.</param>
    public static bool IsTrusted(in FileStatus status, bool allowsSticky = false)
    {
        if (status.UserId != 0 && status.UserId != User)
            return false;
        if (allowsSticky && status.IsDirectory && (status.Mode & Sticky) != 0)
            return true;
        return (status.Mode & WritableByAll) == 0 && ((status.Mode & WritableByGroup) == 0 || status.GroupId == status.UserId);
    }

    /// <summary>The same for the directory at <paramref name="path"/>, or what it links to; false if there is none.</summary>
    /// <inheritdoc cref="IsTrusted(in FileStatus, bool)"/>
    public static bool IsTrustedDirectory(string path, bool allowsSticky)
    {
        try
        {
            using FileDescriptor directory = FileTree.OpenDirectory(path);
            using HeldDescriptor held = directory.Hold();
            return FileTree.GetStatus(held, out FileStatus status) == 0 && IsTrusted(status, allowsSticky);
        }
        catch (ErrnoException)
        {
            return false;
        }
    }
}
