using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Devices.Virtio.VhostUser;

/// <summary>A file system (VIRTIO 1.2 §5.11). The first queue is for requests of high priority.</summary>
internal sealed class FsDevice : VhostUserFrontendDevice
{
    private const ulong Notification = 1UL << 0;    // VIRTIO_FS_F_NOTIFICATION: one more queue, and one more field
    private const int DefaultFsQueueSize = 1024;    // what the daemons have room for
    private const byte CacheRegion = 0;             // VIRTIO_FS_SHMCAP_ID_CACHE, the only one (VIRTIO 1.2 §5.11.5)
    private const ulong PageSize = 4096;

    private static readonly BoundedLog s_log = new("Vmm.Devices.VhostUser");

    private readonly FsDeviceOptions _options;
    private readonly SharedMemoryWindow? _window;

    /// <summary>Connects to the daemon, or starts one.</summary>
    /// <exception cref="VhostException">There is none, or it cannot be started.</exception>
    public FsDevice(FsDeviceOptions options, EventLoop events, CancellationToken cancellation)
        : base(NameOf(options), PeerOf(options), events)
    {
        _options = options;
        try
        {
            var shape = new VhostUserShape(options.Tag is null ? "--fs" : NameOf(options), 1 + options.Queues, DefaultFsQueueSize)
            {
                ConfigSize = FsConfig.Size,
                NeedsConfig = options.Tag is null,
                UsesSharedMemory = options.Dax,
                // The number of queues is ours, and so is the tag if there is one.
                ChangeableConfig = [(options.Tag is null ? FsConfig.MaxTagBytes : 0)..FsConfig.Size],
            };
            Connect(shape, cancellation);
            if (options.Dax)
                _window = OpenWindow();
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public override VirtioDeviceType Type => VirtioDeviceType.FileSystem;

    /// <inheritdoc/>
    public override ulong Features => base.Features & ~Notification;

    /// <inheritdoc/>
    public override IReadOnlyList<SharedMemoryWindow> SharedMemory => _window is null ? [] : [_window];

    /// <inheritdoc/>
    public override void ReadConfig(Span<byte> config)
    {
        base.ReadConfig(config);
        if (config.Length >= FsConfig.Size)
            FsConfig.Write(config, _options.Tag, _options.Queues);
    }

    /// <inheritdoc/>
    public override void Stop()
    {
        base.Stop();
        // Whatever a daemon has left there: the next driver finds nothing.
        _window?.Clear();
    }

    /// <inheritdoc/>
    // The guest runs, and may look into the window: where nothing is mapped it cannot go on.
    public override void StandStill() => base.Stop();

    /// <inheritdoc/>
    public override void SharedMemoryIsNew() => _window?.Orphan();

    /// <inheritdoc/>
    public override bool MapShared(in ShmemMapPayload mapping, FileDescriptor file)
    {
        if (_window is not { } window || mapping.ShmId != window.Id)
            return false;
        window.Map(mapping.ShmOffset, mapping.Length, file, mapping.FdOffset, (mapping.Flags & ShmemMapPayload.FlagWritable) != 0);
        return true;
    }

    /// <inheritdoc/>
    public override bool UnmapShared(in ShmemMapPayload mapping)
    {
        if (_window is not { } window || mapping.ShmId != window.Id)
            return false;
        window.Unmap(mapping.ShmOffset, mapping.Length);
        return true;
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        base.Dispose();
        _window?.Dispose();
    }

    private static string NameOf(FsDeviceOptions options) => options switch
    {
        { Tag: not null } => $"--fs tag={options.Tag}",
        _ => $"--fs {options.Peer.Place}",
    };

    private static VhostUserPeer PeerOf(FsDeviceOptions options) => options.Source is { } source
        ? options.Peer with { Program = VirtiofsProgram.For(NameOf(options), source) }
        : options.Peer;

    private SharedMemoryWindow OpenWindow()
    {
        if ((Frontend.ProtocolFeatures & VhostUserProtocolFeatures.Shmem) == 0)
            throw new VhostException($"{Frontend.Name}: the daemon has no memory to share (the protocol feature SHMEM): leave dax=on out");
        ulong size = Frontend.SharedMemorySizes[CacheRegion];
        if (size == 0 || size % PageSize != 0 || size > SharedMemoryWindow.MaxLength)
        {
            throw new VhostException($"{Frontend.Name}: the daemon has a cache of 0x{size:x} bytes to share: it must be whole pages, at most "
                + $"{SharedMemoryWindow.MaxLength >> 30}G");
        }
        s_log.Debug("{Device}: a shared cache of {Size} MiB", Name, size >> 20);
        try
        {
            return new SharedMemoryWindow(CacheRegion, size);
        }
        catch (ErrnoException e)
        {
            throw new VhostException($"{Frontend.Name}: no addresses for a shared cache of {size >> 20} MiB: {e.Message}", e);
        }
    }
}
