using System.Buffers.Binary;
using Vmm.Devices.Virtio.Scsi;
using Vmm.Devices.Virtio.Vsock;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Devices.Virtio.VhostUser;

/// <summary>A device of any type: what is known of it is in its <see cref="DeviceKind"/>, the rest is the back-end's.</summary>
internal sealed class GenericDevice : VhostUserFrontendDevice
{
    private readonly DeviceKind _kind;
    private readonly int _queues;
    private VsockEventQueue? _events;
    private ulong _guestCid;        // as the driver has read it, where there are events

    /// <summary>Connects to the back-end.</summary>
    /// <exception cref="VhostException">There is none, or it has no such device.</exception>
    public GenericDevice(GenericDeviceOptions options, EventLoop events, CancellationToken cancellation)
        : base(options.Peer.Program is null ? $"--vhost-user type={options.Kind.Word},{options.Peer.Place}" : $"--{options.Kind.Word} {options.Peer.Place}", options.Peer, events)
    {
        _kind = options.Kind;
        _queues = options.Queues ?? options.Kind.Queues;
        try
        {
            Connect(new VhostUserShape(options.Peer.Program is null ? $"--vhost-user type={_kind.Word}" : $"--{_kind.Word}", _kind.LeadingQueues + _queues, _kind.QueueSize)
            {
                ConfigSize = options.ConfigSize ?? _kind.ConfigSize,
                NeedsConfig = _kind.NeedsConfig || options.ConfigSize > 0,
                ChangeableConfig = _kind.ChangeableConfig,
            }, cancellation);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public override VirtioDeviceType Type => _kind.Type;

    /// <inheritdoc/>
    public override int QueueCount => base.QueueCount + _kind.OwnQueues;

    /// <inheritdoc/>
    public override ulong Features => base.Features & ~(_queues == _kind.Queues ? _kind.HiddenFeatures : 0);

    /// <inheritdoc/>
    public override void ReadConfig(Span<byte> config)
    {
        // What is there depends on what the driver has written (VIRTIO 1.2 §5.8.5.1).
        if (_kind.Type == VirtioDeviceType.Input && Frontend.HasConfig && Frontend.IsConnected)
        {
            byte[] now = new byte[config.Length];
            bool isRead = false;
            TryDo(() =>
            {
                Frontend.Session.GetConfig(now);
                isRead = true;
            });
            if (isRead)
            {
                now.CopyTo(config);
                return;
            }
        }
        base.ReadConfig(config);
        if (_kind.Type == VirtioDeviceType.Scsi && config.Length >= ScsiConfig.Size)
        {
            if (!Frontend.HasConfig && config[..ScsiConfig.Size].IndexOfAnyExcept((byte)0) < 0)
                ScsiConfig.Write(config, _queues, QueueSize);
            BinaryPrimitives.WriteUInt32LittleEndian(config, (uint)_queues);
        }
    }

    /// <inheritdoc/>
    public override void WriteConfig(int offset, ReadOnlySpan<byte> data) => WriteToBackend(offset, data);

    /// <inheritdoc/>
    public override void Start(ulong features, GuestMemory memory, IReadOnlyList<VringConfig> queues)
    {
        foreach (VringConfig queue in queues)
        {
            if (_kind.Type == VirtioDeviceType.Vsock && queue.Index == Frontend.RingCount)
                _events = new VsockEventQueue(VirtQueue.Create(memory.AddressSpace, RingLayout.Of(in queue), features));
        }
        base.Start(features, memory, queues);
        if (_events is not null)
            _guestCid = ReadGuestCid();
    }

    /// <inheritdoc/>
    public override void Stop()
    {
        base.Stop();
        _events = null;
    }

    /// <inheritdoc/>
    public override void Notify(int queue) => Tell(_events);

    /// <summary>A driver of a socket device reads its CID when it is told that its connections are gone, and not when the configuration has changed
    /// (VIRTIO 1.2 §5.10.6.7): that event comes once more for another CID, which only the next back-end brings.</summary>
    /// <inheritdoc/>
    public override void ConfigChanged()
    {
        base.ConfigChanged();
        ulong before = _guestCid;
        if (_events is not null && (_guestCid = ReadGuestCid()) != before)
            TellOfReset();
    }

    /// <inheritdoc/>
    public override void Disconnected(string reason) => TellOfReset();

    /// <inheritdoc/>
    public override void Lost(string reason)
    {
        TellOfReset();
        base.Lost(reason);
    }

    private ulong ReadGuestCid()
    {
        Span<byte> config = stackalloc byte[sizeof(ulong)];
        ReadConfig(config);
        return BinaryPrimitives.ReadUInt64LittleEndian(config);
    }

    // The connections of a socket device end with their back-end: whoever reads from one in the guest would wait for ever.
    private void TellOfReset()
    {
        if (_events is null)
            return;
        _events.TransportWasReset();
        Tell(_events);
    }

    private void Tell(VsockEventQueue? events)
    {
        try
        {
            if (events?.Process() == true)
                Host.InterruptQueue();
        }
        catch (VhostException e)
        {
            Host.NeedsReset($"event queue: {e.Message}");
        }
    }
}
