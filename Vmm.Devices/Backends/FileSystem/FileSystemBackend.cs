using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.Confinement;
using Vmm.Vhost.Native.FileSystem;
using Vmm.Vhost.User.Backend;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Devices.Backends.FileSystem;

/// <summary>A file system device (VIRTIO 1.2 §5.11) served as a vhost-user back-end: a directory of the host's.</summary>
public sealed class FileSystemBackend : VhostUserDevice, IDisposable
{
    /// <summary>The system calls that it makes while it is served, besides those of every back-end.</summary>
    public static readonly IReadOnlyList<SystemCallRule> SystemCalls =
    [
        SystemCallNumber.Openat, SystemCallNumber.Openat2, SystemCallNumber.Statx, SystemCallNumber.Getdents64, SystemCallNumber.Readlinkat,
        SystemCallNumber.Fstatfs, SystemCallNumber.Faccessat2, SystemCallNumber.Lseek, SystemCallNumber.Preadv2,
        SystemCallNumber.Getxattr, SystemCallNumber.Listxattr,
        SystemCallRule.Requests(OpenFileIo.GetFlagsRequest, OpenFileIo.GetAttributesRequest),
    ];

    /// <summary>And those of one that may change files.</summary>
    public static readonly IReadOnlyList<SystemCallRule> ChangingCalls =
    [
        SystemCallNumber.Fsync, SystemCallNumber.Fdatasync, SystemCallNumber.Syncfs, SystemCallNumber.Flock,
        new(SystemCallNumber.Fcntl, "cmd is F_OFD_GETLK or F_OFD_SETLK", ArgumentCondition.IsOneOf(1, GetLock, SetLock)),
        new(SystemCallNumber.Fcntl, "cmd is F_DUPFD_CLOEXEC", ArgumentCondition.IsOneOf(1, CopyDescriptor)),
        SystemCallNumber.Pwritev2, SystemCallNumber.Fallocate, SystemCallNumber.CopyFileRange,
        SystemCallNumber.Mkdirat, SystemCallNumber.Symlinkat, SystemCallNumber.Linkat, SystemCallNumber.Unlinkat, SystemCallNumber.Renameat2,
        SystemCallNumber.Fchownat, SystemCallNumber.Fchmodat, SystemCallNumber.Utimensat, SystemCallNumber.Setxattr, SystemCallNumber.Removexattr,
        SystemCallRule.Requests(OpenFileIo.SetFlagsRequest),
    ];

    /// <summary>And those of one that makes no devices.</summary>
    public static readonly IReadOnlyList<SystemCallRule> NodeCalls =
    [
        new(SystemCallNumber.Mknodat, "mode says a file, a FIFO or a socket", new ArgumentCondition(2, FileType, [0, 0x8000, 0x1000, 0xC000])),
        new(SystemCallNumber.Mknodat, "mode says a character device, dev is 0", new ArgumentCondition(2, FileType, [0x2000]), ArgumentCondition.IsOneOf(3, 0)),
    ];

    /// <summary>And those of one that makes any.</summary>
    public static readonly IReadOnlyList<SystemCallRule> DeviceNodeCalls = [SystemCallNumber.Mknodat];

    /// <summary>And those of one that is root and makes files for the guest's users.</summary>
    public static readonly IReadOnlyList<SystemCallRule> IdentityCalls =
        [SystemCallNumber.Setfsuid, SystemCallNumber.Setfsgid, SystemCallNumber.Setgroups, SystemCallNumber.Capget, SystemCallNumber.Capset];

    private const uint GetLock = 36, SetLock = 37;      // F_OFD_GETLK and F_OFD_SETLK of asm-generic/fcntl.h
    private const uint CopyDescriptor = 1030;           // F_DUPFD_CLOEXEC of linux/fcntl.h
    private const uint FileType = 0xF000;               // S_IFMT of linux/stat.h

    private readonly FileSystemOptions _options;
    private readonly FuseServer _server;
    private readonly RequestPool _pool;
    private readonly int _processors = Processors.CountOnline();

    /// <summary>Opens the directory. It is this process's only business from now on: see <see cref="PrepareProcess"/>.</summary>
    /// <exception cref="VhostException">It cannot be had; the message says what to do.</exception>
    public FileSystemBackend(FileSystemOptions options)
    {
        if (options.Queues is < 1 or > FileSystemOptions.MaxQueues)
            throw new VhostException($"a file system has 1 to {FileSystemOptions.MaxQueues} request queues, not {options.Queues}");
        _options = options;
        _server = new FuseServer(options) { FrontEnd = () => FrontEnd };
        _pool = new RequestPool(_server, options.PoolSize);
    }

    /// <summary>Changes this process's current directory, its umask and its groups as serving a directory needs it: before the first front-end, and after the socket was made.</summary>
    /// <exception cref="Vhost.Native.ErrnoException">The kernel refused that.</exception>
    public void PrepareProcess() => _server.PrepareProcess();

    /// <summary>The system calls and rights that the process of this back-end keeps when it is confined.</summary>
    public Confinement Confinement => new()
    {
        Calls = [.. SystemCalls, .. _options.IsReadOnly ? [] : ChangingCalls, .. NodeRules, .. _server.ActsForUsers ? IdentityCalls : [], .. KickGathering.CallsOn(_processors)],
        Tree = _server.Root,
        IsTreeReadOnly = _options.IsReadOnly,
        Root = _server.IsMounted ? _server.Root : null,
        Capabilities = _server.KeptCapabilities,
    };

    private IReadOnlyList<SystemCallRule> NodeRules => _options.IsReadOnly ? [] : _options.PrivilegedFiles ? DeviceNodeCalls : NodeCalls;

    /// <inheritdoc/>
    public override string Name => $"fs {_options.Directory}";

    /// <inheritdoc/>
    public override ulong Features => 0;

    /// <inheritdoc/>
    public override int RingCount => 1 + _options.Queues;

    /// <inheritdoc/>
    // A front-end asks for it only where the tag is this side's.
    public override int ConfigSize => _options.Tag is null ? 0 : FsConfig.Size;

    /// <inheritdoc/>
    public override VhostUserProtocolFeatures ProtocolFeatures =>
        VhostUserProtocolFeatures.DeviceState | (_options.DaxWindow > 0 ? VhostUserProtocolFeatures.Shmem : VhostUserProtocolFeatures.None);

    /// <inheritdoc/>
    public override int KeptMemorySize => FuseServer.KeptSize;

    /// <inheritdoc/>
    public override IReadOnlyList<ulong> SharedMemorySizes => _options.DaxWindow > 0 ? [_options.DaxWindow] : [];

    /// <summary>Answers the FUSE requests of the rings.</summary>
    internal FuseServer Server => _server;

    /// <inheritdoc/>
    public override void ReadConfig(Span<byte> config) => FsConfig.Write(config, _options.Tag, _options.Queues);

    /// <inheritdoc/>
    public override void Reset() => _server.Reset();

    /// <inheritdoc/>
    // Nothing of a guest that may be gone is kept, its locks least of all. A front-end that comes back with the memory that it keeps goes on from there.
    public override void FrontEndGone() => _server.Reset();

    /// <inheritdoc/>
    public override void MemoryKept(KeptMemory? memory) => _server.Keep(memory);

    /// <inheritdoc/>
    public override byte[]? SaveState() => _server.Save();

    /// <inheritdoc/>
    public override bool LoadState(ReadOnlySpan<byte> state) => _server.Load(state);

    /// <inheritdoc/>
    public override IRingHandler StartRing(BackendRing ring) => new FileSystemRing(_server, _pool, _processors);

    /// <inheritdoc/>
    public void Dispose()
    {
        _pool.Dispose();
        _server.Dispose();
    }
}
