using Vmm.Vhost.Native;

namespace Vmm.Devices.Backends.FileSystem;

/// <summary>A file, or a directory, that the guest has opened.</summary>
internal sealed class OpenFile(ulong handle, Inode inode, FileDescriptor descriptor, bool mayBlock)
{
    /// <summary>By what number the guest knows it.</summary>
    public ulong Handle { get; } = handle;

    public Inode Inode { get; } = inode;

    /// <summary>The opening.</summary>
    public FileDescriptor Descriptor { get; } = descriptor;

    /// <summary>Whether reads and writes wait for the disk: it was opened with O_DIRECT or O_SYNC.</summary>
    public bool MayBlock { get; } = mayBlock;

    /// <summary>How far a directory was read; null for a file.</summary>
    public DirectoryStream? Directory { get; init; }

    /// <summary>The next opening of the same file; the <see cref="InodeTable"/>'s.</summary>
    public OpenFile? NextOfInode;
}
