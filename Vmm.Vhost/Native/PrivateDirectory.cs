using Tmds.Linux;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Vhost.Native;

/// <summary>Directories that only their owner may look into.</summary>
public static unsafe class PrivateDirectory
{
    private const int OwnerOnly = 0x1C0;   // 0700
    private const uint OthersMask = 0x3F;  // 0077

    /// <summary>Makes a new one.</summary>
    /// <param name="parent">Where.</param>
    /// <param name="prefix">What its name begins with; the rest is random.</param>
    /// <returns>Its path.</returns>
    /// <exception cref="ErrnoException">mkdir(2) failed, also where something of that name is there already.</exception>
    public static string Create(string parent, string prefix)
    {
        string path = Path.Combine(parent, prefix + Path.GetRandomFileName());
        Make(path);
        return path;
    }

    /// <summary>Makes <paramref name="path"/>.</summary>
    /// <exception cref="ErrnoException">mkdir(2) failed, also where something of that name is there already.</exception>
    public static void Make(string path)
    {
        fixed (byte* name = FileDescriptor.NullTerminated(path))
        {
            // SAFETY: the name is null-terminated and pinned for the call.
            if (LibC.mkdir(name, OwnerOnly) < 0)
                throw ErrnoException.FromLastError($"cannot make {path}");
        }
    }

    /// <summary>Whether <paramref name="path"/> is a directory of this process's user that nobody else may look into.</summary>
    public static bool Is(string path)
    {
        stat status;
        fixed (byte* name = FileDescriptor.NullTerminated(path))
        {
            // SAFETY: the name is null-terminated and pinned, the result on the stack.
            return LibC.stat(name, &status) == 0 && LibC.S_ISDIR(status.st_mode) && status.st_uid == LibC.geteuid() && ((uint)status.st_mode & OthersMask) == 0;
        }
    }

    /// <summary>Opens <paramref name="path"/>, which is there already or is made if <paramref name="isMade"/> is set.</summary>
    /// <param name="path">An absolute path. Its last component must not be a link.</param>
    /// <param name="isMade">Whether it is made if it is not there.</param>
    /// <param name="advice">What the user can do if something else is there; appended to the error.</param>
    /// <exception cref="ErrnoException">It cannot be made or opened, or it is not the directory of this process's user that nobody else may look into.</exception>
    public static FileDescriptor Open(string path, bool isMade, string advice)
    {
        if (isMade)
        {
            try
            {
                Make(path);
            }
            catch (ErrnoException e) when (e.Errno == Errnos.Eexist)
            {
                // Whatever it is, it is looked at below.
            }
        }
        using FileDescriptor parent = FileTree.OpenDirectory(Path.GetDirectoryName(path)!);
        using HeldDescriptor heldParent = parent.Hold();
        int number = FileTree.Open(heldParent, FileDescriptor.NullTerminated(Path.GetFileName(path)), FileTree.DirectoryOnly);
        if (number < 0)
            throw new ErrnoException($"cannot open {path}", -number, number == -Errnos.Enoent ? null : advice);
        var directory = new FileDescriptor(number);
        using HeldDescriptor held = directory.Hold();
        if (FileTree.GetStatus(held, out FileStatus status) == 0 && status.UserId == FileOwner.User && (status.Mode & OthersMask) == 0)
            return directory;
        directory.Dispose();
        throw new ErrnoException($"cannot use {path}", Errnos.Eacces, $"it is another user's, or open to others: {advice}");
    }
}
