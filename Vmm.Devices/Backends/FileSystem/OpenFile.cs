using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Devices.Backends.FileSystem;

/// <summary>A file, or a directory, that the guest has opened.</summary>
internal sealed class OpenFile(ulong handle, Inode inode, FileDescriptor descriptor, int flags)
{
    /// <summary>By what number the guest knows it.</summary>
    public ulong Handle { get; } = handle;

    public Inode Inode { get; } = inode;

    /// <summary>The opening.</summary>
    public FileDescriptor Descriptor { get; } = descriptor;

    /// <summary>How it was opened: flags of open(2).</summary>
    public int Flags { get; } = flags;

    /// <summary>Whether reads and writes wait for the disk: it was opened with O_DIRECT or O_SYNC.</summary>
    public bool MayBlock => (Flags & (FileTree.Direct | FileTree.DataSynchronous)) != 0;

    /// <summary>Whether the file system cannot say that a read would have to wait for the disk (RWF_NOWAIT).</summary>
    public bool CannotTell { get; set; }

    /// <summary>Whether it cannot say so, either, but no read waits: it is in memory.</summary>
    public bool NeverWaits { get; set; }

    /// <summary>The number of the request by which it was opened.</summary>
    public ulong Request { get; init; }

    /// <summary>Where it is in the <see cref="SessionTable"/>; -1 if it is not.</summary>
    public int Slot { get; set; } = -1;

    /// <summary>How far a directory was read; null for a file.</summary>
    public DirectoryStream? Directory { get; init; }

    /// <summary>The next opening of the same file; the <see cref="InodeTable"/>'s.</summary>
    public OpenFile? NextOfInode;

    /// <summary>The one before it; the <see cref="InodeTable"/>'s.</summary>
    public OpenFile? PreviousOfInode;
}
