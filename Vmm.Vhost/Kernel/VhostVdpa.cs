using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.Confinement;

namespace Vmm.Vhost.Kernel;

/// <summary>vhost-vdpa: a whole virtio device behind a device node, in hardware or simulated, whose rings work on guest-physical
/// addresses. The kernel maps guest memory for it, and keeps it in place, while the device runs.</summary>
public sealed class VhostVdpa : VhostKernelBackend
{
    /// <summary>The system calls that it makes once it is open, besides <see cref="VhostKernelBackend.CommonSystemCalls"/>.</summary>
    public static readonly IReadOnlyList<SystemCallRule> OwnSystemCalls =
    [
        SystemCallRule.Requests(
            VhostIoctls.VdpaSetStatus, VhostIoctls.VdpaGetStatus, VhostIoctls.VdpaGetConfig, VhostIoctls.VdpaSetConfig,
            VhostIoctls.VdpaSetVringEnable, VhostIoctls.VdpaSuspend),
    ];

    private const int MaxRings = 256;
    private const byte Acknowledge = 1;     // the device status (VIRTIO 1.2 §2.1)
    private const byte Driver = 2;
    private const byte DriverOk = 4;
    private const byte FeaturesOk = 8;
    private const byte DeviceNeedsReset = 64;

    private readonly ulong _backendFeatures;
    private readonly VhostVdpaIovaRange _iovaRange;
    private bool _isMapped;
    private bool _isReset = true;
    private bool _knowsFeatures;    // the device; until its next reset

    /// <summary>Opens the device node and resets the device. Raises the limit of locked memory (RLIMIT_MEMLOCK, getrlimit(2)) of the whole process as
    /// far as the process may: to no limit with CAP_SYS_RESOURCE, else to the hard limit. The kernel pins all memory of the device while it runs, and
    /// counts it. The limit stays raised, and processes that this one starts by themselves inherit it.</summary>
    /// <param name="path">The device node, such as /dev/vhost-vdpa-0.</param>
    /// <exception cref="VhostException">The device is not there, not ours, or no vDPA device.</exception>
    public VhostVdpa(string path)
        : base(path, "vhost_vdpa", MaxRings)
    {
        try
        {
            // Guest memory will be pinned: later this process may have no right to raise it.
            ResourceLimit.LockedMemory.Raise(altogether: true);
            uint type = 0;
            Call(VhostIoctls.VdpaGetDeviceId, ref type, "it is no vDPA device");
            DeviceType = type;
            SetStatus(0);
            uint rings = 0;
            Call(VhostIoctls.VdpaGetVqsCount, ref rings, "Linux 5.18 or later is needed");
            RingCount = (int)Math.Min(rings, MaxRings);
            ushort size = 0;
            Call(VhostIoctls.VdpaGetVringNum, ref size);
            MaxRingSize = size;
            uint configSize = 0;
            Call(VhostIoctls.VdpaGetConfigSize, ref configSize);
            ConfigSize = configSize;
            Call(VhostIoctls.VdpaGetIovaRange, ref _iovaRange);
            Call(VhostIoctls.GetBackendFeatures, ref _backendFeatures);
            _backendFeatures &= VhostBackendFeatures.IotlbMsgV2 | VhostBackendFeatures.IotlbBatch | VhostBackendFeatures.Suspend;
            if ((_backendFeatures & VhostBackendFeatures.IotlbMsgV2) == 0)
                throw new VhostException($"{Name}: takes no memory by VHOST_IOTLB_MSG_V2: use a current Linux kernel");
            ulong accepted = _backendFeatures;
            Call(VhostIoctls.SetBackendFeatures, ref accepted);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>The virtio device type (VIRTIO 1.2 §5).</summary>
    public uint DeviceType { get; }

    /// <inheritdoc/>
    public override IReadOnlyList<SystemCallRule> SystemCalls => OwnSystemCalls;

    /// <inheritdoc/>
    public override int RingCount { get; }

    /// <summary>The largest size of a ring.</summary>
    public int MaxRingSize { get; }

    /// <summary>Bytes of the device's configuration space.</summary>
    public uint ConfigSize { get; }

    /// <inheritdoc/>
    // Where a packed ring begins is told in a form that not every kernel knows, and there is no way to reset one ring.
    private protected override ulong HiddenFeatures =>
        VirtioFeatures.NotifyOnEmpty | VirtioFeatures.AnyLayout | VirtioFeatures.RingPacked | VirtioFeatures.RingReset;

    /// <inheritdoc/>
    private protected override bool RunsAsWhole => true;

    /// <summary>Whether the device cannot go on until it is reset (DEVICE_NEEDS_RESET in its status). One that sets it signals a change of its
    /// configuration (VIRTIO 1.2 §2.1.2).</summary>
    public bool NeedsReset
    {
        get
        {
            ThrowIfDisposed();
            byte status = 0;
            return TryCall(VhostIoctls.VdpaGetStatus, ref status) >= 0 && (status & DeviceNeedsReset) != 0;
        }
    }

    /// <inheritdoc/>
    public override void StopAll()
    {
        base.StopAll();
        // What a driver agreed on that never started the device is over, too.
        if (!_isReset)
            Release();
    }

    /// <summary>Reads the configuration space from its start.</summary>
    /// <param name="target">Where to; empty for a device that has none.</param>
    /// <exception cref="VhostException">The device refused.</exception>
    public void ReadConfig(Span<byte> target)
    {
        ThrowIfDisposed();
        if (target.IsEmpty)
            return;     // the kernel refuses a read of nothing (EINVAL)
        byte[] argument = ConfigArgument(0, target.Length);
        Call(VhostIoctls.VdpaGetConfig, ref argument[0]);
        argument.AsSpan(Unsafe.SizeOf<VhostVdpaConfig>()).CopyTo(target);
    }

    /// <summary>Writes to the configuration space.</summary>
    /// <param name="offset">Where, in bytes; 0 or more.</param>
    /// <param name="data">What; 1 byte or more, all of it in the space.</param>
    /// <exception cref="ArgumentOutOfRangeException"><paramref name="offset"/> is negative.</exception>
    /// <exception cref="VhostException">The device refused.</exception>
    public void WriteConfig(int offset, ReadOnlySpan<byte> data)
    {
        ThrowIfDisposed();
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        byte[] argument = ConfigArgument(offset, data.Length);
        data.CopyTo(argument.AsSpan(Unsafe.SizeOf<VhostVdpaConfig>()));
        _isReset = false;   // the driver may write before it agrees on features, and reset the device without starting it
        Call(VhostIoctls.VdpaSetConfig, ref argument[0]);
    }

    /// <summary>Has <paramref name="changed"/> signalled when the device changes its configuration; null for nobody.</summary>
    /// <exception cref="VhostException">The device refused.</exception>
    public void SetConfigCall(EventFd? changed)
    {
        ThrowIfDisposed();
        int fd = VhostVringFile.Unbind;
        if (changed is null)
        {
            Call(VhostIoctls.VdpaSetConfigCall, ref fd);
            return;
        }
        using HeldDescriptor held = changed.Hold();
        fd = held.Number;
        Call(VhostIoctls.VdpaSetConfigCall, ref fd);
    }

    /// <inheritdoc/>
    private protected override void ApplyFeatures(ulong accepted)
    {
        _knowsFeatures = false;
        SetStatus(0);
        _isReset = false;
        SetStatus(Acknowledge);
        SetStatus(Acknowledge | Driver);
        // The device works on mapped addresses, also for a driver that has not heard of that: to it they are physical ones.
        ulong features = accepted | (OfferedFeatures & VirtioFeatures.AccessPlatform);
        Call(VhostIoctls.SetFeatures, ref features);
        SetStatus(Acknowledge | Driver | FeaturesOk);
        byte status = 0;
        Call(VhostIoctls.VdpaGetStatus, ref status);
        if ((status & FeaturesOk) == 0)
            throw new VhostException($"{Name}: the device refuses the features 0x{features:x}");
        _knowsFeatures = true;
    }

    /// <inheritdoc/>
    private protected override void ApplyMemory(GuestMemory memory)
    {
        // Mapped when rings start: a mapping pins the pages, and between two starts they may be given back.
    }

    /// <inheritdoc/>
    private protected override void Prepare(ulong features, GuestMemory memory)
    {
        // The stop before was a reset, by which the device has forgotten them.
        if (!_knowsFeatures)
            ApplyFeatures(features);
        if (_isMapped)
            return;
        CheckRange(memory);
        _isMapped = true;
        ulong total = 0;
        foreach (ref readonly GuestRegion region in memory.Regions)
            total += region.Size;
        try
        {
            SendBatch(VhostIotlbMsg.Update);
        }
        catch (VhostException) when (ResourceLimit.LockedMemory.Current is not { } limit || limit >= total)
        {
            // The kernel keeps an entry for each run of neighbouring pages, and takes 2048 of them by default (max_iotlb_entries). A
            // guest whose pages lie in more runs than that gets huge pages, as far as the host has them, and another try.
            Inform($"{Name}: the kernel did not take guest memory as it lies: it is gathered into huge pages");
            SendBatch(VhostIotlbMsg.Invalidate);
            foreach (ref readonly GuestRegion region in memory.Regions)
                memory.TryUseHugePages(region.Start, region.Size);
            SendBatch(VhostIotlbMsg.Update);
        }
    }

    /// <inheritdoc/>
    private protected override VhostVringAddr Locate(in VringConfig ring, GuestMemory memory) => new()
    {
        Index = (uint)ring.Index,
        DescUserAddr = ring.DescriptorArea.Value,
        AvailUserAddr = ring.DriverArea.Value,
        UsedUserAddr = ring.DeviceArea.Value,
    };

    /// <inheritdoc/>
    private protected override void Run(IReadOnlyList<VringConfig> rings)
    {
        foreach (VringConfig ring in rings)
        {
            var enable = new VhostVringState { Index = (uint)ring.Index, Num = 1 };
            Call(VhostIoctls.VdpaSetVringEnable, ref enable);
        }
        SetStatus(Acknowledge | Driver | FeaturesOk | DriverOk);
    }

    /// <inheritdoc/>
    private protected override void Halt(int index)
    {
        // Else only the reset stops it, which is about to come.
        if ((_backendFeatures & VhostBackendFeatures.Suspend) != 0)
            Ioctl.TryCall(Device, VhostIoctls.VdpaSuspend);
    }

    /// <inheritdoc/>
    private protected override void Release()
    {
        byte reset = 0;
        if (!CallOrWarn(VhostIoctls.VdpaSetStatus, ref reset))
            CloseByForce();
        _isReset = true;
        _knowsFeatures = false;
        if (!_isMapped)
            return;
        _isMapped = false;
        if (Device.IsClosed)
            return;   // which unmaps everything
        try
        {
            SendBatch(VhostIotlbMsg.Invalidate);
        }
        catch (VhostException e)
        {
            Warn(e.Message);
        }
    }

    private void CheckRange(GuestMemory memory)
    {
        foreach (ref readonly GuestRegion region in memory.Regions)
        {
            if (region.Start.Value < _iovaRange.First || region.End.Value - 1 > _iovaRange.Last)
            {
                throw new VhostException($"{Name}: reaches addresses 0x{_iovaRange.First:x} to 0x{_iovaRange.Last:x} only, "
                    + "and guest memory has others: give the guest less memory");
            }
        }
    }

    private void SendBatch(byte type)
    {
        bool isBatched = (_backendFeatures & VhostBackendFeatures.IotlbBatch) != 0;
        if (isBatched)
            Send(new VhostIotlbMsg { Type = VhostIotlbMsg.BatchBegin });
        foreach (ref readonly GuestRegion region in Memory!.Regions)
        {
            Send(new VhostIotlbMsg
            {
                Iova = region.Start.Value,
                Size = region.Size,
                Uaddr = (ulong)region.HostAddress,
                Perm = VhostIotlbMsg.AccessReadWrite,
                Type = type,
            });
        }
        if (isBatched)
            Send(new VhostIotlbMsg { Type = VhostIotlbMsg.BatchEnd });
    }

    private void Send(VhostIotlbMsg iotlb)
    {
        var message = new VhostMsgV2 { Type = VhostMsgV2.IotlbMessage, Iotlb = iotlb };
        int result = Device.TryWrite(MemoryMarshal.AsBytes(new ReadOnlySpan<VhostMsgV2>(in message)));
        if (result >= 0)
            return;
        // Whatever the kernel's reason is, it says EFAULT.
        const string advice = "guest memory is pinned for it: raise the limit of locked memory (ulimit -l unlimited), or, if its pages are too "
            + "scattered for the kernel's max_iotlb_entries, back guest memory by huge pages";
        var inner = new ErrnoException("write(VHOST_IOTLB_MSG_V2)", -result, advice);
        throw new VhostException($"{Name}: {inner.Message}", inner);
    }

    private void SetStatus(byte status) => Call(VhostIoctls.VdpaSetStatus, ref status);

    private static byte[] ConfigArgument(int offset, int length)
    {
        byte[] argument = new byte[Unsafe.SizeOf<VhostVdpaConfig>() + length];
        MemoryMarshal.Write(argument, new VhostVdpaConfig { Off = (uint)offset, Len = (uint)length });
        return argument;
    }
}
