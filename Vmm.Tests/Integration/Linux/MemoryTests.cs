using System.Globalization;
using NUnit.Framework;

namespace Vmm.Tests.Integration.Linux;

/// <summary>Where the memory of a guest comes from.</summary>
public class MemoryTests : LinuxTest
{
    private const string Counters = "/sys/kernel/mm/hugepages/hugepages-2048kB/";
    private const int GuestPages = 128;   // 256 MiB
    private const int Gibi = 1 << 30;

    [Test]
    public void Boot_Prefault_AllOfItIsThereFromTheStart() => BootAndCheck(
        new LinuxGuest { Memory = "size=1G,prefault=on" },
        process => Assert.That(ProcFs.SharedMemory(process.Id), Is.GreaterThanOrEqualTo(Gibi)));

    [Test]
    public void Boot_NoPrefault_TakesWhatTheGuestTouches() => BootAndCheck(
        new LinuxGuest { Memory = "size=1G" },
        process => Assert.That(ProcFs.SharedMemory(process.Id), Is.LessThan(Gibi / 2)));

    [Test]
    public void Boot_HugePages_TakesThemAndGivesThemBack()
    {
        int before = Read("nr_hugepages");
        if (!LinuxHost.IsEmulated && Read("free_hugepages") < GuestPages)
            Assert.Ignore($"too few free huge pages: echo {GuestPages} > {Counters}nr_hugepages");
        if (LinuxHost.IsEmulated)
            File.WriteAllText(Counters + "nr_hugepages", $"{before + GuestPages}");
        try
        {
            int available = Available();
            BootAndCheck(new LinuxGuest { Memory = "size=256M,hugepages=on" }, _ =>
            {
                Assert.That(Available(), Is.EqualTo(available - GuestPages), "huge pages that others can have");
                Assert.That(Read("nr_hugepages") - Read("free_hugepages"), Is.GreaterThan(0), "huge pages in use");
            });
            Assert.That(Available(), Is.EqualTo(available), "huge pages are left taken");
        }
        finally
        {
            if (LinuxHost.IsEmulated)
                File.WriteAllText(Counters + "nr_hugepages", $"{before}");
        }
    }

    private static int Available() => Read("free_hugepages") - Read("resv_hugepages");

    private static int Read(string counter) => int.Parse(File.ReadAllText(Counters + counter), CultureInfo.InvariantCulture);
}
