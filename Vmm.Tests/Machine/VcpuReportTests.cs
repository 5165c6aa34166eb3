using NUnit.Framework;
using Vmm.Machine;

namespace Vmm.Tests.Machine;

public class VcpuReportTests
{
    [TestCase(0x1000ul, 0x20ul, 0x3000ul, "rip 0x1000, cr2 0x20, cr3 0x3000")]
    [TestCase(0xfff0ul, 0ul, 0x3000ul, "rip 0xfff0, cr2 0x0, cr3 0x3000")]
    [TestCase(0x1000ul, 0ul, 0ul, "rip 0x1000, cr2 0x0, cr3 0x0")]
    [TestCase(0xfff0ul, 0ul, 0ul, "an address that KVM does not tell (it resets an AMD processor first)")]
    public void Place_Registers_AreShownUnlessTheyAreThoseOfAReset(ulong rip, ulong cr2, ulong cr3, string expected) =>
        Assert.That(VcpuReport.Place(rip, cr2, cr3), Is.EqualTo(expected));
}
