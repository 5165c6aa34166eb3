using System.Buffers.Binary;
using Vmm.Devices.Virtio.Scsi;
using Vmm.Vhost;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Virtio.VhostUser;

/// <summary>A device of any type: what is known of it is in its <see cref="DeviceKind"/>, the rest is the back-end's.</summary>
internal sealed class GenericDevice : VhostUserFrontendDevice
{
    private readonly DeviceKind _kind;
    private readonly int _queues;

    /// <summary>Connects to the back-end.</summary>
    /// <exception cref="VhostException">There is none, or it has no such device.</exception>
    public GenericDevice(GenericOptions options, EventLoop events, CancellationToken cancellation)
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
    public override void WriteConfig(int offset, ReadOnlySpan<byte> data) => Frontend.WriteConfig(offset, data);
}
