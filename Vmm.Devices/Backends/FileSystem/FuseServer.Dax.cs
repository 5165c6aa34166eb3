using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;
using Vmm.Vhost.User.Backend;

namespace Vmm.Devices.Backends.FileSystem;

/// <content>Files that are mapped into the guest (DAX).</content>
internal sealed partial class FuseServer
{
    private const uint DaxFlag = 2;             // FUSE_ATTR_DAX
    private const ulong NoHandle = ulong.MaxValue;

    private readonly DaxWindow? _window;

    /// <summary>The way to the front-end, which maps; null as long as there is none.</summary>
    public Func<VhostUserBackendChannel?> FrontEnd { get; init; } = static () => null;

    private long SetupMapping(FuseRequest request, Inode inode)
    {
        if (!request.TryTake(out FuseSetupMapping arguments))
            return -Errnos.Einval;
        if (_window is null || FrontEnd() is not { } frontEnd)
            return -Errnos.Enosys;
        if (!inode.IsRegular)
            return -Errnos.Einval;
        if (arguments.Handle != NoHandle && _handles.Find(arguments.Handle) is null)
            return -Errnos.Ebadf;
        using HeldDescriptor path = _inodes.Hold(inode, out int error);
        if (error < 0)
            return error;
        // Writable wherever the file can be written to: the guest's kernel may ask for that later, and must not lose the mapping meanwhile. Who may write is its business.
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
