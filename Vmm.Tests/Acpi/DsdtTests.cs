using NUnit.Framework;
using Vmm.Acpi;

namespace Vmm.Tests.Acpi;

public class DsdtTests
{
    [TestCase(true)]
    [TestCase(false)]
    public void Build_SerialPortOrNot_IsDescribedOnlyIfThere(bool hasSerial)
    {
        ReadOnlySpan<byte> dsdt = Dsdt.Build(new AcpiConfig { Cpus = 1, HasSerial = hasSerial }).Written;

        Assert.That(dsdt.IndexOf("COM1"u8) >= 0, Is.EqualTo(hasSerial));
        Assert.That(dsdt.IndexOf("RTC_"u8), Is.GreaterThan(0));
        Assert.That(dsdt.IndexOf("ACPI0013"u8), Is.GreaterThan(0));
    }
}
