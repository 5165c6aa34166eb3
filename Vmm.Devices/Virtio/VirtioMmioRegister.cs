namespace Vmm.Devices.Virtio;

/// <summary>Offsets of the virtio-mmio registers, 32 bits each (VIRTIO 1.2 §4.2.2, table 4.1).</summary>
internal static class VirtioMmioRegister
{
    public const int MagicValue = 0x000;
    public const int Version = 0x004;
    public const int DeviceId = 0x008;
    public const int VendorId = 0x00C;
    public const int DeviceFeatures = 0x010;
    public const int DeviceFeaturesSel = 0x014;
    public const int DriverFeatures = 0x020;
    public const int DriverFeaturesSel = 0x024;
    public const int QueueSel = 0x030;
    public const int QueueNumMax = 0x034;
    public const int QueueNum = 0x038;
    public const int QueueReady = 0x044;
    public const int QueueNotify = 0x050;
    public const int InterruptStatus = 0x060;
    public const int InterruptAck = 0x064;
    public const int Status = 0x070;
    public const int QueueDescLow = 0x080;
    public const int QueueDescHigh = 0x084;
    public const int QueueDriverLow = 0x090;
    public const int QueueDriverHigh = 0x094;
    public const int QueueDeviceLow = 0x0A0;
    public const int QueueDeviceHigh = 0x0A4;
    public const int ShmSel = 0x0AC;
    public const int ShmLenLow = 0x0B0;
    public const int ShmLenHigh = 0x0B4;
    public const int ShmBaseLow = 0x0B8;
    public const int ShmBaseHigh = 0x0BC;
    public const int ConfigGeneration = 0x0FC;

    /// <summary>The device's configuration space, to the end of the page.</summary>
    public const int Config = 0x100;
}
