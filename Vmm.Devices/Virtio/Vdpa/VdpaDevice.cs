using Vmm.Devices.Net;
using Vmm.Vhost;
using Vmm.Vhost.Kernel;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Virtio.Vdpa;

/// <summary>A device of the host's, shown as it is: type, features, queues and configuration are its own.</summary>
internal sealed class VdpaDevice : KernelVhostDevice
{
    private const ulong BlockMq = 1UL << 12;    // VIRTIO_BLK_F_MQ
    private const int NetDataQueues = 2;

    // What needs a network device's control queue.
    private const ulong NetControl = NetFeatures.CtrlVq | NetFeatures.CtrlRx | NetFeatures.CtrlVlan | NetFeatures.CtrlRxExtra
        | NetFeatures.GuestAnnounce | NetFeatures.CtrlMacAddr | NetFeatures.CtrlGuestOffloads;

    private readonly EventLoop _events;
    private readonly VhostVdpa _vdpa;
    private readonly int? _queues;
    private readonly EventFd _configChanged = new();

    /// <summary>Opens the device node.</summary>
    /// <exception cref="VhostException">It cannot be had, or it has fewer queues than asked for.</exception>
    public VdpaDevice(VdpaDeviceOptions options, EventLoop events)
        : base($"--vdpa path={options.Path}", () => new VhostVdpa(options.Path), events)
    {
        _events = events;
        _vdpa = (VhostVdpa)Backend;
        _queues = options.Queues;
        try
        {
            if (_queues > _vdpa.RingCount)
                throw new VhostException($"{Name}: queues={_queues} are more than the device has, {_vdpa.RingCount}");
            if (_queues < NetDataQueues && Type == VirtioDeviceType.Net)
                throw new VhostException($"{Name}: queues={_queues} is too few: a network device has {NetDataQueues} for data");
            _vdpa.SetConfigCall(_configChanged);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public override void Listen()
    {
        base.Listen();
        _events.Add(_configChanged, ConfigMayHaveChanged, failed: Fail);
    }

    /// <inheritdoc/>
    public override VirtioDeviceType Type => (VirtioDeviceType)_vdpa.DeviceType;

    /// <inheritdoc/>
    // A driver that is shown fewer queues must not be told of all of them.
    public override ulong Features => _vdpa.Features & ~(QueueCount == _vdpa.RingCount ? 0UL : Type switch
    {
        VirtioDeviceType.Net => QueueCount > NetDataQueues ? NetFeatures.Mq : NetFeatures.Mq | NetControl,
        VirtioDeviceType.Block => BlockMq,
        _ => 0UL,
    });

    /// <inheritdoc/>
    public override int QueueCount => _queues ?? _vdpa.RingCount;

    /// <inheritdoc/>
    public override int ConfigSize => (int)Math.Min(_vdpa.ConfigSize, MaxConfigSize);

    /// <inheritdoc/>
    public override int MaxQueueSize(int queue) => _vdpa.MaxRingSize;

    /// <inheritdoc/>
    public override void ReadConfig(Span<byte> config) => _vdpa.ReadConfig(config);

    /// <inheritdoc/>
    public override void WriteConfig(int offset, ReadOnlySpan<byte> data) => _vdpa.WriteConfig(offset, data);

    /// <inheritdoc/>
    public override void Dispose()
    {
        _events.Remove(_configChanged);
        base.Dispose();
        _configChanged.Dispose();
    }

    private void ConfigMayHaveChanged()
    {
        lock (Sync)
        {
            if (_configChanged.IsClosed || _configChanged.Drain() == 0)
                return;
            if (_vdpa.NeedsReset)
            {
                Host.NeedsReset("the device has set DEVICE_NEEDS_RESET in its status");
                return;
            }
            try
            {
                Host.ConfigChanged();
            }
            catch (VhostException e)
            {
                Host.NeedsReset(e.Message);
            }
        }
    }
}
