using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.Confinement;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Devices.Backends.FileSystem;

/// <summary>Does what a guest asks for by FUSE (linux/fuse.h), in one directory of the host's. Any thread may call it, for different requests.</summary>
/// <remarks>Nothing leads out of the directory: a name is one component, no link is followed, and only a file that was found so before is opened, if it is
/// a regular file or a directory. The guest's kernel checks the rights of its users (as with every virtio-fs daemon); the host's kernel checks those of this process's user.</remarks>
internal sealed partial class FuseServer : IDisposable
{
    /// <summary>What <see cref="Execute"/> returns for a request that would hold up others: it is to be given to a thread that may wait.</summary>
    public const long NeedsThread = long.MinValue;

    /// <summary>And for one that is done once a lock can be had.</summary>
    public const long Waits = long.MinValue + 1;

    private const uint ReadAndSearch = 5;       // R_OK | X_OK
    private const uint MostForgets = 1 << 16;   // of one request: 1 MiB of them
    private const int DescriptorsForOthers = 256;   // besides those of files: rings, memory, connections, what is opened for a moment

    private static readonly BoundedLog s_log = new("Vmm.Devices.Backends.FileSystem");

    private readonly FileDescriptor _links;
    private readonly InodeTable _inodes;
    private readonly HandleTable _handles;
    private readonly Lazy<ulong> _capabilities;     // asked for by a request, when the process is confined
    private readonly bool _isRoot;
    private readonly bool _isOfServer;              // the whole directory is
    private FuseFlags _flags;
    private volatile bool _isReady;

    /// <summary>Opens the directory.</summary>
    /// <exception cref="VhostException">It is none, or /proc is missing; the message says what to do.</exception>
    public FuseServer(FileSystemOptions options)
    {
        Options = options;
        _capabilities = new Lazy<ulong>(() => ActsForUsers ? ThreadPrivileges.Permitted : 0);
        _window = options.DaxWindow > 0 ? new DaxWindow(options.DaxWindow, OpenMapped) : null;
        _isRoot = ThreadIdentity.CanChange;
        _renamedCapabilities = RenamedCapabilities(Map);
        _links = OpenLinks();
        try
        {
            FileDescriptor root = OpenRoot(options.Directory);
            // For the native binary, which alone can be confined. A current directory that has no path is nothing for the JIT.
            IsMounted = _isRoot && !RuntimeFeature.IsDynamicCodeSupported && TryMount(ref _links) && TryMount(ref root);
            try
            {
                using (HeldDescriptor held = root.Hold())
                {
                    if (FileTree.IsOfKernel(in held))
                        throw new VhostException($"{options.Directory} is of the kernel's own files, such as /proc or /sys: give a directory with files");
                    _isOfServer = FileTree.IsOfServer(in held);
                    using HeldDescriptor links = _links.Hold();
                    if (FileTree.CheckAccess(in links, in held, ReadAndSearch) == -Errnos.Eacces)
                        s_log.Warn("{Directory}: the back-end's user may not read or enter it, and so the guest may not: change its owner or its mode, or give another", options.Directory);
                }
                _inodes = new InodeTable(root, DescriptorsForFiles(ResourceLimit.OpenFiles.Current ?? 1024)) { Links = _links };
            }
            catch
            {
                root.Dispose();
                throw;
            }
            _handles = new HandleTable(_inodes);
            _waiters = new LockWaiters(this);
        }
        catch (ErrnoException e)
        {
            Dispose();
            throw new VhostException($"{options.Directory}: {e.Message}", e);
        }
        catch (VhostException)
        {
            Dispose();
            throw;
        }
    }

    /// <summary>The options of the directory.</summary>
    public FileSystemOptions Options { get; }

    /// <summary>Makes this process one that serves directories: its current directory, its umask and its groups are no longer those that it was started with. Without it
    /// there are no extended attributes, whose calls take paths, and the umask takes rights away from what the guest makes.</summary>
    /// <exception cref="ErrnoException">The kernel refused.</exception>
    public void PrepareProcess()
    {
        FileTree.Enter(_links);
        FileTree.ClearMask();
        if (_isRoot)
            ThreadIdentity.BecomeOfRootsGroup();
    }

    /// <summary>The shared directory.</summary>
    public FileDescriptor Root => _inodes.Root.Path!;

    /// <summary>Whether <see cref="Root"/> is mounted for this process alone (<see cref="PrivateMount"/>). Then the directory /proc/self/fd is, too.</summary>
    public bool IsMounted { get; }

    /// <summary>Whether files that are made belong to the guest's users: the process is root.</summary>
    public bool ActsForUsers => _isRoot && !Options.IsReadOnly;

    /// <summary>The capabilities that a thread has while it serves, as bits of <see cref="ThreadPrivileges"/>; 0 for a process that acts for no users.</summary>
    public ulong Capabilities => _capabilities.Value;

    /// <summary>Files that the guest knows, those of them that have a descriptor, and openings.</summary>
    public (int Files, int Descriptors, int Handles) Count => (_inodes.Count.Files, _inodes.Count.Descriptors, _handles.Count);

    /// <summary>Directories that the guest has forgotten, and that are kept for files below them which it knows.</summary>
    public int CountKept() => _inodes.CountKept();

    /// <summary>How many descriptors of files may be open without need, of a process that may have <paramref name="limit"/>. The rest is for what the guest has open, which is not to be
    /// closed.</summary>
    public static int DescriptorsForFiles(ulong limit) => (int)Math.Clamp((limit - Math.Min(limit, DescriptorsForOthers)) / 4 * 3, 64, int.MaxValue);

    /// <summary>Whether a request is answered at all.</summary>
    public static bool HasReply(FuseOpcode opcode) => opcode is not (FuseOpcode.Forget or FuseOpcode.BatchForget or FuseOpcode.Interrupt);

    /// <summary>Whether a request may be left to another thread wherever the file is: <see cref="Execute"/> may return <see cref="NeedsThread"/> or <see cref="Waits"/> for it.</summary>
    public static bool MayBeLeft(FuseOpcode opcode) => MayWait(opcode) || opcode is FuseOpcode.Read or FuseOpcode.Write or FuseOpcode.Flush or FuseOpcode.SetLockWait;

    /// <summary>Whether a request does something else when it is done once more: it appends, moves what is in a file, exchanges two names, or leaves a
    /// whiteout in the place of a file, which would then take the file's new name.</summary>
    public bool IsForOnce(FuseRequest request)
    {
        bool isForOnce = request.Header.Opcode switch
        {
            FuseOpcode.Write => request.TryTake(out FuseTransfer transfer) && Appends(in transfer),
            FuseOpcode.Allocate => request.TryTake(out FuseAllocate allocate) && (allocate.Mode & AllocateShift) != 0,
            FuseOpcode.Rename2 => request.TryTake(out FuseRename2 rename) && (rename.Flags & (RenameExchange | RenameWhiteout)) != 0,
            _ => false,
        };
        request.Rewind();
        return isForOnce;
    }

    /// <summary>Does what a request asks for, and leaves the reply in it.</summary>
    /// <param name="request">The request.</param>
    /// <param name="mayWait">Whether the thread may wait for disks and locks.</param>
    /// <returns>Bytes of the reply, a negated error number, <see cref="NeedsThread"/>, or <see cref="Waits"/>.</returns>
    public long Execute(FuseRequest request, bool mayWait)
    {
        FuseOpcode opcode = request.Header.Opcode;
        if (!_isReady && opcode is not (FuseOpcode.Init or FuseOpcode.Forget or FuseOpcode.BatchForget or FuseOpcode.Interrupt or FuseOpcode.Destroy))
            return -Errnos.Eio;
        // Before anything is done: what was done could not be told.
        if (HasReply(opcode) && request.Room < SmallestReply(opcode))
            return -Errnos.Einval;
        if (!mayWait && (MayWait(opcode) || (_isOfServer && AsksServer(opcode) && request.MayBeLeft)))
            return NeedsThread;
        if (Options.IsReadOnly && Changes(opcode))
            return -Errnos.Erofs;
        if (Options.IsReadOnly && opcode is (FuseOpcode.Fsync or FuseOpcode.FsyncDirectory or FuseOpcode.SyncFs))
            return 0;   // nothing of this guest's waits for a disk
        try
        {
            long result = Dispatch(request, opcode, mayWait);
            if (result is -Errnos.Emfile)
            {
                s_log.Warn("{Directory}: the guest has as many files open as this process may have descriptors ({Limit}): raise the hard limit (ulimit -Hn, or LimitNOFILE= of systemd)",
                    Options.Directory, ResourceLimit.OpenFiles);
            }
            return result;
        }
        catch (ObjectDisposedException)
        {
            return -Errnos.Ebadf;   // the guest has closed it meanwhile
        }
        catch (Exception e) when (e is VhostException or IOException)
        {
            s_log.Warn("{Directory}: {Request}: {Error}", Options.Directory, opcode, e.Message);
            return -Errnos.Eio;
        }
    }

    /// <summary>The guest's driver has begun anew, or its front-end is gone: it knows no file, and the front-end has nothing mapped any more.</summary>
    public void Reset()
    {
        ForgetFiles();
        _window?.Clear();
        _mayHaveMappings = false;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _waiters?.Dispose();
        _handles?.Clear();
        _inodes?.Dispose();
        _links.Dispose();
    }

    private static bool MayWait(FuseOpcode opcode) => opcode is FuseOpcode.Fsync or FuseOpcode.FsyncDirectory or FuseOpcode.SyncFs or FuseOpcode.Allocate
        or FuseOpcode.CopyFileRange or FuseOpcode.SetupMapping or FuseOpcode.RemoveMapping;

    // Requests that a network file system passes to its server, which may not answer for long. Those with long replies are left out: a ring has memory for one of these at a time.
    private static bool AsksServer(FuseOpcode opcode) => opcode is FuseOpcode.Lookup or FuseOpcode.GetAttributes or FuseOpcode.SetAttributes or FuseOpcode.Statx
        or FuseOpcode.SymbolicLink or FuseOpcode.MakeNode or FuseOpcode.MakeDirectory or FuseOpcode.Unlink or FuseOpcode.RemoveDirectory or FuseOpcode.Rename
        or FuseOpcode.Rename2 or FuseOpcode.Link or FuseOpcode.Access or FuseOpcode.StatFs or FuseOpcode.Open or FuseOpcode.Create or FuseOpcode.TemporaryFile
        or FuseOpcode.Release or FuseOpcode.OpenDirectory or FuseOpcode.ReleaseDirectory or FuseOpcode.Seek;

    // Bytes of a reply without which the guest cannot know what was done. Replies that are as long as there is room, and those that say only that it was done, have none.
    private static int SmallestReply(FuseOpcode opcode) => opcode switch
    {
        FuseOpcode.Init => FuseInitReply.WireSize,
        FuseOpcode.Lookup or FuseOpcode.MakeNode or FuseOpcode.MakeDirectory or FuseOpcode.SymbolicLink or FuseOpcode.Link => FuseEntry.WireSize,
        FuseOpcode.Create or FuseOpcode.TemporaryFile => FuseEntry.WireSize + FuseOpenReply.WireSize,
        FuseOpcode.Open or FuseOpcode.OpenDirectory => FuseOpenReply.WireSize,
        FuseOpcode.GetAttributes or FuseOpcode.SetAttributes => FuseAttributesReply.WireSize,
        FuseOpcode.Statx => FuseStatxReply.WireSize,
        FuseOpcode.StatFs => FuseStatFs.WireSize,
        FuseOpcode.Write or FuseOpcode.CopyFileRange => FuseWriteReply.WireSize,
        FuseOpcode.GetLock => FuseLockReply.WireSize,
        FuseOpcode.Seek => sizeof(long),
        FuseOpcode.Ioctl => FuseIoctlReply.WireSize,
        _ => 0,
    };

    // Opening is not among them: that depends on the flags.
    private static bool Changes(FuseOpcode opcode) => opcode is FuseOpcode.SetAttributes or FuseOpcode.SymbolicLink or FuseOpcode.MakeNode or FuseOpcode.MakeDirectory
        or FuseOpcode.Unlink or FuseOpcode.RemoveDirectory or FuseOpcode.Rename or FuseOpcode.Rename2 or FuseOpcode.Link or FuseOpcode.Write or FuseOpcode.SetXattr
        or FuseOpcode.RemoveXattr or FuseOpcode.Allocate or FuseOpcode.CopyFileRange or FuseOpcode.TemporaryFile;

    private long Dispatch(FuseRequest request, FuseOpcode opcode, bool mayWait)
    {
        switch (opcode)
        {
            case FuseOpcode.Init:
                return Initialize(request);
            case FuseOpcode.Destroy:
                EndSession();
                return 0;
            case FuseOpcode.Forget:
                if (request.TryTake(out ulong lookups))
                    _inodes.Forget(request.Header.Node, lookups);
                return 0;
            case FuseOpcode.BatchForget:
                return ForgetBatch(request);
            case FuseOpcode.Interrupt:
                if (request.TryTake(out ulong unique))
                    _waiters.Interrupt(unique);
                return 0;
            case FuseOpcode.RemoveMapping:
                return RemoveMapping(request);
        }
        if (FindFile(request) is not { } inode)
        {
            return opcode == FuseOpcode.SyncFs ? SynchronizeFileSystem(_inodes.Root)
                : Enum.IsDefined(opcode) ? -Errnos.Estale   // the guest looks it up again
                : -Errnos.Enosys;
        }
        return opcode switch
        {
            FuseOpcode.Lookup => Lookup(request, inode),
            FuseOpcode.GetAttributes => GetAttributes(request, inode),
            FuseOpcode.SetAttributes => SetAttributes(request, inode, mayWait),
            FuseOpcode.Statx => Statx(request, inode),
            FuseOpcode.ReadLink => ReadLink(request, inode),
            FuseOpcode.SymbolicLink => MakeSymbolicLink(request, inode),
            FuseOpcode.MakeNode => MakeNode(request, inode),
            FuseOpcode.MakeDirectory => MakeDirectory(request, inode),
            FuseOpcode.Unlink => Remove(request, inode, isDirectory: false),
            FuseOpcode.RemoveDirectory => Remove(request, inode, isDirectory: true),
            FuseOpcode.Rename or FuseOpcode.Rename2 => Rename(request, inode, opcode == FuseOpcode.Rename2),
            FuseOpcode.Link => Link(request, inode),
            FuseOpcode.Access => CheckAccess(request, inode),
            FuseOpcode.StatFs => GetFileSystem(request, inode),
            FuseOpcode.SyncFs => SynchronizeFileSystem(inode),
            FuseOpcode.Open => Open(request, inode, mayWait),
            FuseOpcode.Create => Create(request, inode),
            FuseOpcode.TemporaryFile => MakeTemporaryFile(request, inode),
            FuseOpcode.Read => Read(request, mayWait),
            FuseOpcode.Write => Write(request, mayWait),
            FuseOpcode.Flush => Flush(request, mayWait),
            FuseOpcode.Release or FuseOpcode.ReleaseDirectory => Release(request),
            FuseOpcode.Fsync or FuseOpcode.FsyncDirectory => Synchronize(request),
            FuseOpcode.Allocate => Allocate(request),
            FuseOpcode.Seek => Seek(request),
            FuseOpcode.CopyFileRange => CopyRange(request),
            FuseOpcode.Ioctl => Ioctl(request),
            FuseOpcode.OpenDirectory => OpenDirectory(request, inode),
            FuseOpcode.ReadDirectory => ReadDirectory(request, withAttributes: false),
            FuseOpcode.ReadDirectoryPlus => ReadDirectory(request, withAttributes: true),
            FuseOpcode.GetXattr => GetXattr(request, inode),
            FuseOpcode.SetXattr => SetXattr(request, inode),
            FuseOpcode.ListXattr => ListXattr(request, inode),
            FuseOpcode.RemoveXattr => RemoveXattr(request, inode),
            FuseOpcode.SetupMapping => SetupMapping(request, inode),
            FuseOpcode.GetLock => GetLock(request, inode),
            FuseOpcode.SetLock => SetLock(request, inode, waits: false),
            FuseOpcode.SetLockWait => SetLock(request, inode, waits: true),
            _ => -Errnos.Enosys,
        };
    }

    // The file that a request is about. Of one that the guest has forgotten, while it has that open, an opening tells.
    private Inode? FindFile(FuseRequest request)
    {
        if (_inodes.Find(request.Header.Node) is { } inode)
            return inode;
        bool hasHandle;
        ulong handle = 0;
        switch (request.Header.Opcode)
        {
            case FuseOpcode.GetAttributes or FuseOpcode.Statx:
                hasHandle = request.TryTake(out FuseGetAttributes asked) && (asked.Flags & FuseGetAttributes.HasHandle) != 0;
                handle = asked.Handle;
                break;
            case FuseOpcode.SetAttributes:
                hasHandle = request.TryTake(out FuseSetAttributes change) && (change.Valid & FuseSetAttributes.HandleBit) != 0;
                handle = change.Handle;
                break;
            // The handle is what their arguments begin with.
            case FuseOpcode.Read or FuseOpcode.Write or FuseOpcode.Flush or FuseOpcode.Release or FuseOpcode.Fsync or FuseOpcode.Allocate or FuseOpcode.Seek or FuseOpcode.CopyFileRange
                or FuseOpcode.Ioctl or FuseOpcode.ReadDirectory or FuseOpcode.ReadDirectoryPlus or FuseOpcode.ReleaseDirectory or FuseOpcode.FsyncDirectory
                or FuseOpcode.GetLock or FuseOpcode.SetLock or FuseOpcode.SetLockWait or FuseOpcode.SetupMapping:
                hasHandle = request.TryTake(out handle);
                break;
            default:
                return null;
        }
        request.Rewind();
        return hasHandle ? Opening(request, handle)?.Inode : null;
    }

    // The guest has unmounted, or mounts anew. The device goes on, so the front-end still has mapped what the guest had mapped: Linux leaves that to this side.
    private void EndSession()
    {
        ForgetFiles();
        _mayHaveMappings = false;
        if (_window is { IsEmpty: false } window && FrontEnd() is { } frontEnd)
            window.UnmapAll(frontEnd);
    }

    private void ForgetFiles()
    {
        _isReady = false;
        _waiters.Clear();
        _handles.Clear();
        _inodes.Clear();    // and with it what is written down
        _ranges = new RangeCount();     // a lock that a guest asked for as it forgot the file may be counted still
    }

    private long ForgetBatch(FuseRequest request)
    {
        if (!request.TryTake(out FuseForgetBatch batch))
            return 0;
        uint given = (request.Header.Length - FuseRequestHeader.WireSize - FuseForgetBatch.WireSize) / FuseForgetOne.WireSize;
        uint count = Math.Min(batch.Count, given);
        if (count > MostForgets)
        {
            s_log.Warn("{Directory}: the guest forgets {Count} files by one request, of which the first {Most} count", Options.Directory, count, MostForgets);
            count = MostForgets;
        }
        Span<FuseForgetOne> some = stackalloc FuseForgetOne[256];
        for (uint done = 0; done < count; done += (uint)some.Length)
        {
            some = some[..(int)Math.Min((uint)some.Length, count - done)];
            request.ReadForgets((ulong)done * FuseForgetOne.WireSize, MemoryMarshal.AsBytes(some));
            foreach (FuseForgetOne one in some)
                _inodes.Forget(one.Node, one.Lookups);
        }
        return 0;
    }

    private static bool TryMount(ref FileDescriptor directory)
    {
        if (PrivateMount.TryMake(directory) is not { } mounted)
            return false;
        directory.Dispose();
        directory = mounted;
        return true;
    }

    private static FileDescriptor OpenLinks()
    {
        try
        {
            return FileTree.OpenDirectory("/proc/self/fd");
        }
        catch (ErrnoException e)
        {
            throw new VhostException($"{e.Message}: mount /proc, by which files are opened", e);
        }
    }

    private static FileDescriptor OpenRoot(string directory)
    {
        try
        {
            return FileTree.OpenDirectory(directory);
        }
        catch (ErrnoException e) when (e.Errno is Errnos.Enoent or Errnos.Enotdir)
        {
            throw new VhostException($"{directory} is no directory: make it first, or give another", e);
        }
        catch (ErrnoException e)
        {
            throw new VhostException(e.Message, e);
        }
    }
}
