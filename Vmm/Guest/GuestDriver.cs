using Vmm.Devices.Virtio;

namespace Vmm.Guest;

/// <summary>A driver that a test guest needs.</summary>
/// <param name="Module">Its module, with underscores: <c>virtio_mmio</c>.</param>
/// <param name="Symbol">The symbol of the kernel's configuration that builds it: <c>CONFIG_VIRTIO_MMIO</c>.</param>
/// <param name="IsOptional">Whether the guest does without it if the kernel has none.</param>
internal readonly record struct GuestDriver(string Module, string Symbol, bool IsOptional = false)
{
    /// <summary>All virtio devices of ours.</summary>
    public static readonly GuestDriver VirtioMmio = new("virtio_mmio", "CONFIG_VIRTIO_MMIO");

    /// <summary>Directories of the host.</summary>
    public static readonly GuestDriver VirtioFs = new("virtiofs", "CONFIG_VIRTIO_FS");

    /// <summary>Sockets between host and guest.</summary>
    public static readonly GuestDriver Vsock = new("vmw_vsock_virtio_transport", "CONFIG_VIRTIO_VSOCKETS");

    /// <summary>A file system whose changes are kept elsewhere.</summary>
    public static readonly GuestDriver Overlay = new("overlay", "CONFIG_OVERLAY_FS");

    /// <summary>Disks.</summary>
    public static readonly GuestDriver VirtioBlock = new("virtio_blk", "CONFIG_VIRTIO_BLK");

    /// <summary>Network interfaces.</summary>
    public static readonly GuestDriver VirtioNet = new("virtio_net", "CONFIG_VIRTIO_NET");

    /// <summary>Consoles, and ports for the agent.</summary>
    public static readonly GuestDriver VirtioConsole = new("virtio_console", "CONFIG_VIRTIO_CONSOLE");

    /// <summary>Random numbers.</summary>
    public static readonly GuestDriver VirtioRng = new("virtio_rng", "CONFIG_HW_RANDOM_VIRTIO", IsOptional: true);

    /// <summary>SCSI targets, and their disks.</summary>
    public static readonly GuestDriver VirtioScsi = new("virtio_scsi", "CONFIG_SCSI_VIRTIO"), ScsiDisk = new("sd_mod", "CONFIG_BLK_DEV_SD");

    /// <summary>Raw packets, for DHCP clients and tcpdump.</summary>
    public static readonly GuestDriver PacketSockets = new("af_packet", "CONFIG_PACKET", IsOptional: true);

    /// <summary>IPv6.</summary>
    public static readonly GuestDriver Ipv6 = new("ipv6", "CONFIG_IPV6", IsOptional: true);

    /// <summary>Those of a device of <paramref name="type"/>; none where we do not know it. A guest may bring a driver of its own for what few kernels have one for.</summary>
    public static IReadOnlyList<GuestDriver> Of(VirtioDeviceType type) => type switch
    {
        VirtioDeviceType.FileSystem => [VirtioFs],
        VirtioDeviceType.Block => [VirtioBlock],
        VirtioDeviceType.Net => [VirtioNet, PacketSockets, Ipv6],
        VirtioDeviceType.Scsi => [VirtioScsi, ScsiDisk],
        VirtioDeviceType.Vsock => [Vsock],
        VirtioDeviceType.Rng => [VirtioRng],
        VirtioDeviceType.Console => [VirtioConsole],
        VirtioDeviceType.Gpio => [new("gpio_virtio", "CONFIG_GPIO_VIRTIO", IsOptional: true)],
        VirtioDeviceType.I2c => [new("i2c_virtio", "CONFIG_I2C_VIRTIO", IsOptional: true)],
        VirtioDeviceType.Input => [new("virtio_input", "CONFIG_VIRTIO_INPUT", IsOptional: true)],
        VirtioDeviceType.Gpu => [new("virtio_gpu", "CONFIG_DRM_VIRTIO_GPU", IsOptional: true)],
        VirtioDeviceType.Sound => [new("virtio_snd", "CONFIG_SND_VIRTIO", IsOptional: true)],
        VirtioDeviceType.Can => [new("virtio_can", "CONFIG_CAN_VIRTIO_CAN", IsOptional: true)],
        _ => [],
    };
}
