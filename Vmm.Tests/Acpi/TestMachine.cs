using System.Buffers.Binary;
using System.Text;
using Vmm.Acpi;
using Vmm.Vhost.Memory;

namespace Vmm.Tests.Acpi;

/// <summary>A guest's first MiB with ACPI tables in it, which it finds as a guest does: from the RSDP on.</summary>
internal sealed class TestMachine : IDisposable
{
    public TestMachine(int cpus, int slots = 0, bool isPc = false)
    {
        Memory = GuestMemory.Create([(new GuestAddress(0), 1 << 20)]);
        try
        {
            RsdpAddress = AcpiTables.Write(Memory, Config(cpus, slots) with { HasPcInterruptControllers = isPc }).Value;
        }
        catch
        {
            Memory.Dispose();
            throw;
        }
    }

    public GuestMemory Memory { get; }

    public ulong RsdpAddress { get; }

    public byte[] Rsdp => Memory.Slice(new GuestAddress(RsdpAddress), 36).ToArray();

    public ulong XsdtAddress => BinaryPrimitives.ReadUInt64LittleEndian(Rsdp.AsSpan(24));

    public byte[] Xsdt => Table(XsdtAddress);

    public ulong FadtAddress => BinaryPrimitives.ReadUInt64LittleEndian(Xsdt.AsSpan(36));

    public byte[] Fadt => Table(FadtAddress);

    public ulong MadtAddress => BinaryPrimitives.ReadUInt64LittleEndian(Xsdt.AsSpan(44));

    public byte[] Madt => Table(MadtAddress);

    public ulong DsdtAddress => BinaryPrimitives.ReadUInt64LittleEndian(Fadt.AsSpan(140));

    public byte[] Dsdt => Table(DsdtAddress);

    public ulong FacsAddress => BinaryPrimitives.ReadUInt64LittleEndian(Fadt.AsSpan(132));

    /// <summary>A machine with its first slots filled, each where the address map has it.</summary>
    public static AcpiConfig Config(int cpus, int slots) => new()
    {
        Cpus = cpus,
        VirtioSlots = Enumerable.Range(0, slots).Select(i => new VirtioMmioSlot(
            (byte)i,
            new GuestAddress(AddressMap.VirtioMmioStart + (ulong)i * AddressMap.VirtioMmioSlotSize),
            AddressMap.VirtioMmioSlotSize,
            AddressMap.VirtioMmioGsi(i))).ToArray(),
    };

    public static string Signature(byte[] table) => Encoding.ASCII.GetString(table, 0, 4);

    public static byte Sum(ReadOnlySpan<byte> bytes)
    {
        byte sum = 0;
        foreach (byte value in bytes)
            sum += value;
        return sum;
    }

    public void Dispose() => Memory.Dispose();

    private byte[] Table(ulong address) =>
        Memory.Slice(new GuestAddress(address), (int)Memory.Read<uint>(new GuestAddress(address + 4))).ToArray();
}
