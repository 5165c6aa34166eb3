using System.Buffers.Binary;
using Vmm.Devices.Virtio;

namespace Vmm.Tests.Fakes;

/// <summary>Plays a driver: sets a device up by the registers of its transport, as VIRTIO 1.2 §3.1.1 and §4.2.3 say.</summary>
internal sealed class VirtioDriver(VirtioMmioTransport transport)
{
    public const uint Acknowledge = 1;
    public const uint Driver = 2;
    public const uint DriverOk = 4;
    public const uint FeaturesOk = 8;
    public const uint NeedsReset = 64;
    public const uint Failed = 128;

    public uint this[int offset]
    {
        get
        {
            Span<byte> data = stackalloc byte[4];
            transport.Read((ulong)offset, data);
            return BinaryPrimitives.ReadUInt32LittleEndian(data);
        }
        set
        {
            Span<byte> data = stackalloc byte[4];
            BinaryPrimitives.WriteUInt32LittleEndian(data, value);
            transport.Write((ulong)offset, data);
        }
    }

    public uint Status
    {
        get => this[VirtioMmioRegister.Status];
        set => this[VirtioMmioRegister.Status] = value;
    }

    /// <summary>Resets the device and agrees on <paramref name="features"/>.</summary>
    public void Negotiate(ulong features)
    {
        Status = 0;
        Status = Acknowledge;
        Status = Acknowledge | Driver;
        this[VirtioMmioRegister.DriverFeaturesSel] = 0;
        this[VirtioMmioRegister.DriverFeatures] = (uint)features;
        this[VirtioMmioRegister.DriverFeaturesSel] = 1;
        this[VirtioMmioRegister.DriverFeatures] = (uint)(features >> 32);
        Status = Acknowledge | Driver | FeaturesOk;
    }

    /// <summary>Sets a queue up, its three areas one after another from <paramref name="address"/> on, a page each.</summary>
    public void SetUpQueue(int queue, uint size, ulong address)
    {
        this[VirtioMmioRegister.QueueSel] = (uint)queue;
        this[VirtioMmioRegister.QueueNum] = size;
        SetAddress(VirtioMmioRegister.QueueDescLow, address);
        SetAddress(VirtioMmioRegister.QueueDriverLow, address + 0x1000);
        SetAddress(VirtioMmioRegister.QueueDeviceLow, address + 0x2000);
        this[VirtioMmioRegister.QueueReady] = 1;
    }

    /// <summary>Lets the device run.</summary>
    public void Start() => Status |= DriverOk;

    private void SetAddress(int register, ulong address)
    {
        this[register] = (uint)address;
        this[register + 4] = (uint)(address >> 32);
    }
}
