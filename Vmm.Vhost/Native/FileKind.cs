using Tmds.Linux;

namespace Vmm.Vhost.Native;

/// <summary>What a path names.</summary>
public static class FileKind
{
    /// <summary>Whether <paramref name="path"/> is a socket itself (not a link to one).</summary>
    public static unsafe bool IsSocket(string path)
    {
        stat status;
        fixed (byte* name = FileDescriptor.NullTerminated(path))
        {
            // SAFETY: the name is null-terminated and pinned, the result on the stack.
            return LibC.lstat(name, &status) == 0 && (status.st_mode & LibC.S_IFMT) == LibC.S_IFSOCK;
        }
    }
}
