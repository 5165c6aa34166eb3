using NUnit.Framework;
using Vmm.Devices.Net;

namespace Vmm.Tests.Devices.Net;

public class MacAddressTests
{
    [Test]
    public void TryParse_Address_IsReadAndWritten()
    {
        Assert.That(MacAddress.TryParse("02:00:aB:cD:0e:Ff", out MacAddress address));
        byte[] bytes = new byte[6];
        address.CopyTo(bytes);
        Assert.That(bytes, Is.EqualTo(new byte[] { 2, 0, 0xAB, 0xCD, 0x0E, 0xFF }));
        Assert.That(address.ToString(), Is.EqualTo("02:00:ab:cd:0e:ff"));
        Assert.That(new MacAddress(bytes), Is.EqualTo(address));
    }

    [TestCase("")]
    [TestCase("02:00:00:00:00")]
    [TestCase("02:00:00:00:00:00:00")]
    [TestCase("02-00-00-00-00-00")]
    [TestCase("02:00:00:00:00:0g")]
    [TestCase("02:00:00:00:00: 1")]
    [TestCase("+2:00:00:00:00:01")]
    public void TryParse_NoAddress_IsFalse(string text) => Assert.That(MacAddress.TryParse(text, out _), Is.False);

    [Test]
    public void Random_IsUnicastAndLocallyAdministered()
    {
        for (int i = 0; i < 100; i++)
        {
            var address = MacAddress.Random();
            Assert.That(address.IsMulticast, Is.False);
            Assert.That(Convert.ToByte(address.ToString()[..2], 16) & 2, Is.EqualTo(2), $"{address}");
        }
    }
}
