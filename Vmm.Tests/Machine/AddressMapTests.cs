using NUnit.Framework;
using Vmm.Devices.Platform;

namespace Vmm.Tests.Machine;

public class AddressMapTests
{
    private const ulong Page = 0x1000;

    private static readonly (ulong Start, ulong Size)[] s_memory =
    [
        (AddressMap.AcpiTablesStart, AddressMap.AcpiTablesEnd - AddressMap.AcpiTablesStart),
        (AddressMap.VirtioMmioStart, AddressMap.VirtioMmioSlots * (ulong)AddressMap.VirtioMmioSlotSize),
        (AddressMap.IoApicAddress, Page),
        (AddressMap.LocalApicAddress, Page),
        (AddressMap.KvmIdentityMapAddress, Page),
        (AddressMap.KvmTssAddress, 3 * Page),
    ];

    private static readonly (ulong Start, ulong Size)[] s_ports =
    [
        (AddressMap.I8042DataPort, 1),
        (AddressMap.I8042CommandPort, 1),
        (AddressMap.RtcPort, Rtc.PortCount),
        (AddressMap.SerialPort, Uart16550.RegisterCount),
        (AddressMap.PvpanicPort, 1),
        (AddressMap.SleepControlPort, 1),
        (AddressMap.SleepStatusPort, 1),
        (AddressMap.ResetPort, 1),
        (AddressMap.PmTimerPort, AcpiPmTimer.PortCount),
        (AddressMap.Pm1Port, 6),
    ];

    [Test]
    public void Ranges_OfMemoryAndPorts_RiseWithoutOverlap()
    {
        foreach ((ulong Start, ulong Size)[] ranges in new[] { s_memory, s_ports })
        {
            for (int i = 1; i < ranges.Length; i++)
                Assert.That(ranges[i].Start, Is.GreaterThanOrEqualTo(ranges[i - 1].Start + ranges[i - 1].Size), $"range {i}");
        }
    }

    [Test]
    public void Ranges_OfDevices_LieInTheHoleBelow4GiB()
    {
        foreach ((ulong start, ulong size) in s_memory[1..])
        {
            Assert.That(start, Is.GreaterThanOrEqualTo(AddressMap.LowRamEnd));
            Assert.That(start + size, Is.LessThanOrEqualTo(AddressMap.HighRamStart));
            Assert.That(start % Page, Is.Zero);
        }
    }

    [Test]
    public void Gsis_OfAllSlots_AreIoApicInputsOfTheirOwn()
    {
        uint[] all =
        [
            AddressMap.SerialGsi, AddressMap.PowerButtonGsi, AddressMap.SciGsi, AddressMap.RtcGsi,
            .. Enumerable.Range(0, AddressMap.VirtioMmioSlots).Select(AddressMap.VirtioMmioGsi),
        ];
        Assert.That(all, Is.Unique.And.All.LessThan(AddressMap.IoApicGsiBase + AddressMap.IoApicInputs));
    }
}
