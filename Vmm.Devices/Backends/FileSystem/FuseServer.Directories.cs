using System.Runtime.InteropServices;
using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Devices.Backends.FileSystem;

/// <content>Directories that are open.</content>
internal sealed partial class FuseServer
{
    private const int MaxListing = 64 * 1024;

    private readonly DirectoryBuffers _directoryBuffers = new();

    private long OpenDirectory(FuseRequest request, Inode inode)
    {
        if (!request.TryTake(out FuseOpen _))
            return -Errnos.Einval;
        if (!inode.IsDirectory)
            return -Errnos.Enotdir;
        using HeldDescriptor path = _inodes.Hold(inode, out int error);
        if (error < 0 || (error = Reopen(in path, FileTree.DirectoryOnly, out FileDescriptor? directory)) < 0)
            return error;
        var opened = new OpenFile(_handles.Next(), inode, directory!, FileTree.DirectoryOnly) { Request = request.Header.Unique, Directory = new DirectoryStream(_directoryBuffers) };
        _handles.Add(opened);
        // A directory's entries are names, not data.
        uint flags = Options.Cache is FileSystemCache.Always or FileSystemCache.Metadata ? FuseOpenReply.KeepCache | FuseOpenReply.CacheDirectory : 0;
        return request.Reply(new FuseOpenReply(opened.Handle, flags, 0));
    }

    private long ReadDirectory(FuseRequest request, bool withAttributes)
    {
        if (!request.TryTake(out FuseTransfer arguments) || arguments.Offset > long.MaxValue)
            return -Errnos.Einval;
        if (Opening(request, arguments.Handle) is not { Directory: { } stream } opened)
            return -Errnos.Ebadf;
        int size = (int)Math.Min(Math.Min(arguments.Size, MaxListing), request.Room);
        Span<byte> reply = request.MakeReply(size);
        int length = 0;
        using HeldDescriptor directory = opened.Descriptor.Hold();
        if (!FileTree.IsBelowItsMount(in directory))
            return -Errnos.Estale;      // the host has moved it out of the shared directory
        lock (stream)
        {
            try
            {
                int result = stream.Seek(in directory, (long)arguments.Offset);
                if (result < 0)
                    return result;
                while ((result = stream.Peek(in directory, out DirectoryEntry entry)) > 0)
                {
                    int written = WriteEntry(request, reply[length..], opened.Inode, in directory, in entry, withAttributes);
                    if (written == 0)
                        return length > 0 ? length : -Errnos.Einval;    // not even one has room
                    stream.Take(in entry);
                    length += written;
                }
                return length > 0 ? length : result;
            }
            finally
            {
                stream.Rest();
            }
        }
    }

    // 0 where there is no room.
    private int WriteEntry(FuseRequest request, Span<byte> reply, Inode parent, in HeldDescriptor directory, in DirectoryEntry entry, bool withAttributes)
    {
        ReadOnlySpan<byte> name = entry.Name[..^1];
        int start = withAttributes ? FuseEntry.WireSize : 0;
        int length = Align.Up(start + FuseDirectoryEntry.WireSize + name.Length, 8);
        if (length > reply.Length)
            return 0;
        reply[..length].Clear();
        // An entry without a number is one whose attributes are not known: the guest asks for them. No file can be found by way of a directory that the guest has forgotten.
        if (withAttributes && !entry.IsDot && _inodes.Find(parent.Id) == parent && FileTree.GetStatus(in directory, entry.Name, out FileStatus status) == 0)
            MemoryMarshal.Write(reply, Entry(request, parent, entry.Name, in status));
        // The root's own number stands for its parent, too: the guest learns nothing of the directory above the root.
        ulong number = parent == _inodes.Root && entry.IsDot ? parent.Identity.Number : entry.Inode;
        MemoryMarshal.Write(reply[start..], new FuseDirectoryEntry(number, (ulong)entry.Next, (uint)name.Length, entry.Type));
        name.CopyTo(reply[(start + FuseDirectoryEntry.WireSize)..]);
        return length;
    }
}
