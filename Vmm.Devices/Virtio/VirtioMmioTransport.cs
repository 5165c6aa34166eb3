using System.Buffers.Binary;
using Vmm.Devices.Bus;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.Confinement;

namespace Vmm.Devices.Virtio;

/// <summary>virtio over MMIO, version 2 (VIRTIO 1.2 §4.2): a page of registers through which a driver finds its device, agrees on
/// features, sets up queues and starts it.</summary>
/// <remarks>Reading has no side effects, so all that can be read is kept in <see cref="Registers"/>; only writes do something, and what
/// they may do depends on the status. The driver is the guest's: a write that makes no sense has no effect but a line in the log
/// at Debug.</remarks>
public sealed partial class VirtioMmioTransport : IBusDevice, IVirtioHost, IDisposable
{
    private const uint Magic = 0x7472_6976;             // "virt"
    private const uint InterfaceVersion = 2;
    private const uint Vendor = 0x204D_4D56;            // "VMM "
    private const uint UsedBufferInterrupt = 1;
    private const uint ConfigurationInterrupt = 2;

    private static readonly BoundedLog s_log = new("Vmm.Devices.Virtio");

    private readonly VirtioDevice _device;
    private GuestMemory _memory;
    private readonly QueueRegisters[] _queues;
    private readonly EventFd _acknowledged = new();
    private VirtioStatus _status;
    private bool _isResetIncomplete;   // and that is why DEVICE_NEEDS_RESET stands
    private ulong _driverFeatures;
    private uint _deviceFeaturesSel;
    private uint _driverFeaturesSel;
    private uint _queueSel;
    private uint _interruptStatus;
    private uint _generation;

    /// <summary>Puts <paramref name="device"/>, which from now on belongs to the transport, behind a page of registers.</summary>
    /// <exception cref="ErrnoException">There is no memory or descriptor left for it.</exception>
    /// <exception cref="VhostException">The device's configuration cannot be read.</exception>
    public VirtioMmioTransport(VirtioDevice device, GuestMemory memory)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(device.ConfigSize, VirtioDevice.MaxConfigSize, nameof(device));
        _device = device;
        _memory = memory;
        _queues = new QueueRegisters[device.QueueCount];
        try
        {
            Registers = new RegisterPage();
            Interrupt = new EventFd();
            for (int i = 0; i < _queues.Length; i++)
                _queues[i] = new QueueRegisters(i, device.MaxQueueSize(i));
            device.Host = this;
            Reset();
            UpdateConfig();   // a device whose configuration cannot be read is refused
            device.Listen();
        }
        catch
        {
            Free();
            throw;
        }
    }

    /// <summary>The registers as the driver reads them; may be mapped into the guest, for reading.</summary>
    public RegisterPage Registers { get; } = null!;

    /// <summary>Signalled for each interrupt, by the back-end too: to be made an edge of the device's interrupt line.</summary>
    public EventFd Interrupt { get; } = null!;

    /// <summary>The device, for messages.</summary>
    public string Name => _device.Name;

    /// <inheritdoc cref="VirtioDevice.DriverCalls"/>
    public IReadOnlyList<SystemCallRule> DriverCalls => _device.DriverCalls;

    /// <inheritdoc cref="VirtioDevice.EventCalls"/>
    public IReadOnlyList<SystemCallRule> EventCalls => _device.EventCalls;

    /// <summary>How often a driver has started the device, over all resets.</summary>
    public long Starts { get; private set; }

    /// <inheritdoc cref="VirtioDevice.SharedMemory"/>
    public IReadOnlyList<SharedMemoryWindow> SharedMemory => _device.SharedMemory;

    /// <summary>Where a 32-bit write of <c>Value</c> at <c>Offset</c> needs to do nothing but signal: what KVM can do by itself.</summary>
    public IEnumerable<(int Offset, uint Value, EventFd Signal)> Notifications
    {
        get
        {
            for (int i = 0; i < _queues.Length; i++)
            {
                if (_device.IsDelegated(i))
                    yield return (VirtioMmioRegister.QueueNotify, (uint)i, _queues[i].Kick);
            }
            // Every interrupt is acknowledged. While that of used buffers counts as always pending, there is nothing to do, and
            // nobody listens.
            yield return (VirtioMmioRegister.InterruptAck, UsedBufferInterrupt, _acknowledged);
        }
    }

    // Two bits have the driver put more into QueueNotify than the queue's index, and KVM compares the whole value that is written. The third lets it reset a single queue, which
    // no register here does: Linux does that over PCI only.
    private ulong OfferedFeatures => _device.Features & ~(VirtioFeatures.NotificationData | VirtioFeatures.NotificationConfigData | VirtioFeatures.RingReset);

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data)
    {
        lock (_device.Sync)
        {
            if (offset < RegisterPage.Size && (ulong)data.Length <= RegisterPage.Size - offset)
                Registers.Current.Slice((int)offset, data.Length).CopyTo(data);
            else
                data.Fill(0xFF);
        }
    }

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        lock (_device.Sync)
        {
            try
            {
                if (offset >= VirtioMmioRegister.Config)
                    WriteConfig(offset - VirtioMmioRegister.Config, data);
                else if (data.Length != sizeof(uint) || offset % sizeof(uint) != 0)
                    Ignore((int)offset, "is not 32 bits wide and aligned");   // VIRTIO 1.2 §4.2.2.2
                else
                    WriteRegister((int)offset, BinaryPrimitives.ReadUInt32LittleEndian(data));
            }
            catch (Exception e) when (e is IOException or GuestMemoryException)
            {
                // The driver, a back-end or the host failed in the middle of it.
                NeedsReset(e.Message);
            }
        }
    }

    /// <inheritdoc/>
    public void Reset()
    {
        lock (_device.Sync)
        {
            _device.Stop();
            // A device that may still write to memory must not say that its reset is complete (VIRTIO 1.2 §2.4.1).
            _isResetIncomplete = _device.MayWrite(_memory);
            _status = _isResetIncomplete ? VirtioStatus.NeedsReset : VirtioStatus.None;
            _driverFeatures = 0;
            _deviceFeaturesSel = _driverFeaturesSel = _queueSel = 0;
            _interruptStatus = 0;
            foreach (QueueRegisters queue in _queues)
                queue.Reset();
            PublishAll();
        }
    }

    /// <summary>Resets the device, whose guest has other memory from now on.</summary>
    public void Reset(GuestMemory memory)
    {
        lock (_device.Sync)
        {
            _memory = memory;
            Reset();
        }
    }

    /// <summary>Whether somebody may still write to the guest's memory although the device was reset.</summary>
    public bool MayWriteToMemory
    {
        get
        {
            lock (_device.Sync)
                return _device.MayWrite(_memory);
        }
    }

    /// <inheritdoc/>
    public void ConfigChanged()
    {
        UpdateConfig();
        // The driver is interrupted also where the registers show the change already. A write of its own may have brought that, and it has not read them since.
        if ((_status & VirtioStatus.DriverOk) != 0)
            RaiseConfigurationInterrupt();
    }

    /// <inheritdoc/>
    public void InterruptQueue() => Interrupt.SignalPeer();

    /// <inheritdoc/>
    public void NeedsReset(string reason)
    {
        if ((_status & VirtioStatus.NeedsReset) != 0)
        {
            _isResetIncomplete = false;   // only the next reset helps
            return;
        }
        s_log.Warn("{Device}: {Reason}: it stands still until its driver resets it", Name, reason);
        _device.StandStill();
        SetStatus(_status | VirtioStatus.NeedsReset);
        ShowLastConfig();
        if ((_status & VirtioStatus.DriverOk) != 0)
            RaiseConfigurationInterrupt();   // VIRTIO 1.2 §2.1.2
    }

    /// <summary>Stops and frees the device.</summary>
    public void Dispose()
    {
        lock (_device.Sync)
        {
            _device.Stop();
            Free();
        }
    }

    private void Free()
    {
        _device.Dispose();
        foreach (QueueRegisters? queue in _queues)
            queue?.Dispose();
        Interrupt?.Dispose();
        _acknowledged.Dispose();
        Registers?.Dispose();
    }

    private void WriteRegister(int offset, uint value)
    {
        switch (offset)
        {
            case VirtioMmioRegister.DeviceFeaturesSel:
                _deviceFeaturesSel = value;
                ShowDeviceFeatures();
                break;
            case VirtioMmioRegister.DriverFeaturesSel:
                _driverFeaturesSel = value;
                break;
            case VirtioMmioRegister.DriverFeatures:
                WriteDriverFeatures(value);
                break;
            case VirtioMmioRegister.QueueSel:
                _queueSel = value;
                ShowQueue();
                break;
            case VirtioMmioRegister.QueueNotify:
                Notify(value);
                break;
            case VirtioMmioRegister.InterruptAck:
                _interruptStatus &= ~value;
                ShowInterruptStatus();
                break;
            case VirtioMmioRegister.Status:
                WriteStatus((VirtioStatus)value);
                break;
            case VirtioMmioRegister.ShmSel:
                ShowSharedMemory(value);
                break;
            case VirtioMmioRegister.QueueNum:
            case VirtioMmioRegister.QueueReady:
            case >= VirtioMmioRegister.QueueDescLow and <= VirtioMmioRegister.QueueDeviceHigh:
                WriteQueue(offset, value);
                break;
            default:
                Ignore(offset, "is to a register that cannot be written");
                break;
        }
    }

    private void WriteStatus(VirtioStatus value)
    {
        if (value == VirtioStatus.None)
        {
            Reset();
            return;
        }
        // Linux resets the device when it unbinds a driver, and not once more when it binds the next one.
        if (_isResetIncomplete && !_device.MayWrite(_memory))
        {
            _isResetIncomplete = false;
            SetStatus(_status & ~VirtioStatus.NeedsReset);
        }
        const VirtioStatus ofDriver = VirtioStatus.Acknowledge | VirtioStatus.Driver | VirtioStatus.FeaturesOk
            | VirtioStatus.DriverOk | VirtioStatus.Failed;
        VirtioStatus now = _status & ofDriver;
        VirtioStatus added = value & ofDriver & ~now;
        // After FAILED there is nothing but a reset (VIRTIO 1.2 §2.1.1). Linux makes none after a probe that failed: the next driver adds DRIVER to what
        // stands there. That counts as a reset, and as the two steps up to DRIVER.
        if ((now & VirtioStatus.Failed) != 0 && (now & ~value) == 0 && (added & ~VirtioStatus.Driver) == 0 && (value & VirtioStatus.Driver) != 0)
        {
            Reset();
            SetStatus(_status | VirtioStatus.Acknowledge | VirtioStatus.Driver);
            return;
        }
        // Only a reset clears a bit.
        if ((now & ~value) != 0 || (now & VirtioStatus.Failed) != 0)
        {
            Ignore(VirtioMmioRegister.Status, "clears status bits, which only a reset may");
            return;
        }
        if ((added & VirtioStatus.Failed) != 0)
        {
            SetStatus(_status | VirtioStatus.Failed);   // whatever comes with it, the driver has given up
            return;
        }
        if ((added & VirtioStatus.Acknowledge) != 0)
            SetStatus(_status | VirtioStatus.Acknowledge);
        if ((added & VirtioStatus.Driver) != 0 && (_status & VirtioStatus.Acknowledge) != 0)
            SetStatus(_status | VirtioStatus.Driver);
        // A driver that gets FEATURES_OK expects that DRIVER_OK starts the device, which needs a reset before.
        if ((added & VirtioStatus.FeaturesOk) != 0 && (_status & (VirtioStatus.Driver | VirtioStatus.NeedsReset)) == VirtioStatus.Driver && AreFeaturesGood()
            && _device.AcceptFeatures(_driverFeatures, _memory))
        {
            SetStatus(_status | VirtioStatus.FeaturesOk);
        }
        if ((added & VirtioStatus.DriverOk) != 0 && (_status & (VirtioStatus.FeaturesOk | VirtioStatus.NeedsReset)) == VirtioStatus.FeaturesOk)
            Start();
    }

    private void Start()
    {
        // Before the device may speak: what it says of itself counts only from here on.
        SetStatus(_status | VirtioStatus.DriverOk);
        Starts++;
        var rings = new List<VringConfig>();
        foreach (QueueRegisters queue in _queues)
        {
            if (queue.Ready)
                rings.Add(queue.Check(_memory, _driverFeatures, Interrupt));
        }
        _device.Start(_driverFeatures, _memory, rings);
        s_log.Debug("{Device}: started with features 0x{Features:x} and {Queues} queues", Name, _driverFeatures, rings.Count);
    }

    private void SetStatus(VirtioStatus status)
    {
        _status = status;
        Registers.Set(VirtioMmioRegister.Status, (uint)status);
        ShowInterruptStatus();
    }

    private bool AreFeaturesGood() =>
        (_driverFeatures & ~OfferedFeatures) == 0 && (_driverFeatures & VirtioFeatures.Version1) != 0;

    private void WriteDriverFeatures(uint value)
    {
        if ((_status & (VirtioStatus.Driver | VirtioStatus.FeaturesOk | VirtioStatus.Failed)) != VirtioStatus.Driver || _driverFeaturesSel > 1)
        {
            Ignore(VirtioMmioRegister.DriverFeatures, "comes when features cannot be accepted");
            return;
        }
        int shift = 32 * (int)_driverFeaturesSel;
        _driverFeatures = (_driverFeatures & ~(0xFFFF_FFFFUL << shift)) | ((ulong)value << shift);
    }

    private void WriteConfig(ulong offset, ReadOnlySpan<byte> data)
    {
        int size = _device.ConfigSize;
        if ((_status & (VirtioStatus.Driver | VirtioStatus.Failed | VirtioStatus.NeedsReset)) != VirtioStatus.Driver
            || offset > (ulong)size || (ulong)data.Length > (ulong)size - offset)
        {
            Ignore(VirtioMmioRegister.Config, "is outside the configuration, or there is no driver yet");
            return;
        }
        _device.WriteConfig((int)offset, data);
        UpdateConfig();
    }

    /// <summary>Shows the device's configuration as it is now.</summary>
    private void UpdateConfig()
    {
        Span<byte> next = Registers.Prepare();
        Span<byte> config = next.Slice(VirtioMmioRegister.Config, _device.ConfigSize);
        _device.ReadConfig(config);
        if (config.SequenceEqual(Registers.Current.Slice(VirtioMmioRegister.Config, config.Length)))
            return;
        BinaryPrimitives.WriteUInt32LittleEndian(next[VirtioMmioRegister.ConfigGeneration..], ++_generation);
        Registers.Publish();
    }

    // Linux does not look at DEVICE_NEEDS_RESET, but at the configuration: the link of a network device that lost its switch is down.
    private void ShowLastConfig()
    {
        try
        {
            UpdateConfig();
        }
        catch (IOException e)
        {
            // It needs a reset already, or it was reset and refuses its next driver: then, too, the machine goes on.
            s_log.Debug("{Device}: {Error}", Name, e.Message);
        }
    }

    private void RaiseConfigurationInterrupt()
    {
        _interruptStatus |= ConfigurationInterrupt;
        ShowInterruptStatus();
        Interrupt.SignalPeer();
    }

    private void PublishAll()
    {
        Registers.Set(VirtioMmioRegister.MagicValue, Magic);
        Registers.Set(VirtioMmioRegister.Version, InterfaceVersion);
        Registers.Set(VirtioMmioRegister.DeviceId, (uint)_device.Type);
        Registers.Set(VirtioMmioRegister.VendorId, Vendor);
        SetStatus(_status);
        ShowDeviceFeatures();
        ShowQueue();
        ShowSharedMemory(selector: 0);
        ShowLastConfig();
    }

    // Back-ends interrupt without the VMM, so nobody could say when buffers were used: as long as the device runs, they may have been.
    private void ShowInterruptStatus() => Registers.Set(
        VirtioMmioRegister.InterruptStatus,
        _interruptStatus | ((_status & VirtioStatus.DriverOk) != 0 ? UsedBufferInterrupt : 0));

    private void ShowDeviceFeatures() => Registers.Set(
        VirtioMmioRegister.DeviceFeatures,
        _deviceFeaturesSel > 1 ? 0 : (uint)(OfferedFeatures >> (32 * (int)_deviceFeaturesSel)));

    private void ShowSharedMemory(uint selector)
    {
        // A region that is not there has the length -1 (VIRTIO 1.2 §4.2.2).
        (ulong address, ulong length) = _device.FindSharedMemory(selector) is { } region
            ? (region.Start.Value, region.Length)
            : (ulong.MaxValue, ulong.MaxValue);
        Registers.Set(VirtioMmioRegister.ShmLenLow, (uint)length);
        Registers.Set(VirtioMmioRegister.ShmLenHigh, (uint)(length >> 32));
        Registers.Set(VirtioMmioRegister.ShmBaseLow, (uint)address);
        Registers.Set(VirtioMmioRegister.ShmBaseHigh, (uint)(address >> 32));
    }

    private void Ignore(int offset, string why)
    {
        if (s_log.IsDebugEnabled)
            s_log.Debug("{Device}: a write at {Offset} {Why}: ignored", Name, $"0x{offset:x3}", why);
    }
}
