using System.Buffers.Binary;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;
using Vmm.Vhost.User.Backend;

namespace Vmm.Devices.Backends.FileSystem;

/// <content>Files that are mapped into the guest (DAX).</content>
internal sealed partial class FuseServer
{
    private const uint DaxFlag = 2;             // FUSE_ATTR_DAX
    private const uint DaxMark = 0x02000000;    // FS_DAX_FL of linux/fs.h
    private const ulong NoHandle = ulong.MaxValue;

    private readonly DaxWindow? _window;
    private bool _mayHaveMappings;      // of a process before this one, which only the front-end knows

    /// <summary>The way to the front-end, which maps; null as long as there is none.</summary>
    public Func<BackendRequestSender?> FrontEnd { get; init; } = static () => null;

    // For a guest that leaves it to this side (dax=inode, the default of its kernel).
    private bool IsMapped(Inode inode) => Options.Dax switch
    {
        FileSystemDax.Always => true,
        FileSystemDax.Never => false,
        _ => IsMarkedForDax(inode),
    };

    // The host is asked once, until it answers. A file that changes between the two kinds would have the guest's kernel drop it.
    private bool IsMarkedForDax(Inode inode)
    {
        if (inode.DaxMark < 0 && HasDaxMark(inode) is bool isMarked)
            inode.DaxMark = isMarked ? 1 : 0;
        return inode.DaxMark > 0;
    }

    // Null where the file cannot be opened now.
    private bool? HasDaxMark(Inode inode)
    {
        using HeldDescriptor path = _inodes.Hold(inode, out int error);
        if (error < 0 || Reopen(in path, FileTree.NonBlocking, out FileDescriptor? file) < 0)
            return null;
        using (file)
        {
            using HeldDescriptor held = file!.Hold();
            Span<byte> flags = stackalloc byte[sizeof(long)];
            flags.Clear();
            return OpenFileIo.Request(in held, OpenFileIo.GetFlagsRequest, flags) >= 0 && (BinaryPrimitives.ReadUInt32LittleEndian(flags) & DaxMark) != 0;
        }
    }

    private long SetupMapping(FuseRequest request, Inode inode)
    {
        if (!request.TryTake(out FuseSetupMapping arguments))
            return -Errnos.Einval;
        if (_window is null || FrontEnd() is not { } frontEnd)
            return -Errnos.Enosys;
        if (!inode.IsRegular)
            return -Errnos.Einval;
        if (arguments.Handle != NoHandle && Opening(request, arguments.Handle) is null)
            return -Errnos.Ebadf;
        using HeldDescriptor path = _inodes.Hold(inode, out int error);
        if (error < 0)
            return error;
        // Maps the file writable if it can be, also where the guest asks for reading only. Its kernel may ask for writing later, and a new mapping would take the old one away for a moment.
        // That kernel checks which of its users may write.
        bool isWritable = !Options.IsReadOnly;
        error = isWritable ? Reopen(in path, FileTree.ReadWrite | FileTree.NonBlocking, out FileDescriptor? file) : Reopen(in path, FileTree.NonBlocking, out file);
        if (error < 0 && isWritable && (arguments.Flags & FuseSetupMapping.Writable) == 0)
        {
            isWritable = false;
            error = Reopen(in path, FileTree.NonBlocking, out file);
        }
        if (error < 0)
            return error;
        using (file)
        {
            if (!isWritable && (arguments.Flags & FuseSetupMapping.Writable) != 0)
                return -Errnos.Erofs;
            return _window.Map(frontEnd, arguments.WindowOffset, arguments.Length, inode.Id, file!, arguments.FileOffset, isWritable);
        }
    }

    // For a part of a mapping that stays.
    private int OpenMapped(ulong id, bool isWritable, out FileDescriptor? file)
    {
        file = null;
        if (_inodes.Find(id) is not { } inode)
            return -Errnos.Estale;
        using HeldDescriptor path = _inodes.Hold(inode, out int error);
        return error < 0 ? error : Reopen(in path, (isWritable ? FileTree.ReadWrite : 0) | FileTree.NonBlocking, out file);
    }

    private long RemoveMapping(FuseRequest request)
    {
        // struct fuse_removemapping_in is a count alone.
        if (!request.TryTake(out uint count))
            return -Errnos.Einval;
        if (_window is null || FrontEnd() is not { } frontEnd)
            return -Errnos.Enosys;
        for (uint i = 0; i < count; i++)
        {
            if (!request.TryTake(out FuseRemoveMapping one))
                return -Errnos.Einval;
            int error = _window.Unmap(frontEnd, one.WindowOffset, one.Length);
            if (error < 0)
                return error;
        }
        return 0;
    }
}
