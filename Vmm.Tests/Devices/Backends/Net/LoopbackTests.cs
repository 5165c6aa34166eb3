using System.Net;
using NUnit.Framework;
using Vmm.Devices.Backends.Net;

namespace Vmm.Tests.Devices.Backends.Net;

public sealed class LoopbackTests
{
    [TestCase("127.0.0.1", true)]
    [TestCase("127.255.1.2", true)]
    [TestCase("0.0.0.0", true)]
    [TestCase("0.1.2.3", true)]
    [TestCase("10.0.2.2", false)]
    [TestCase("128.0.0.1", false)]
    [TestCase("1.127.0.0", false)]
    [TestCase("::1", true)]
    [TestCase("::", true)]
    [TestCase("::127.0.0.1", true)]
    [TestCase("::ffff:127.0.0.1", true)]
    [TestCase("::ffff:10.0.0.1", true)]
    [TestCase("fe80::1", false)]
    [TestCase("2001:db8::1", false)]
    [TestCase("64:ff9b::7f00:1", false)]
    public void IsMeant_Destination_SaysSo(string address, bool expected)
    {
        byte[] bytes = IPAddress.Parse(address).GetAddressBytes();
        byte[] frame = bytes.Length == 4
            ? [.. new byte[12], 8, 0, .. Enumerable.Repeat((byte)0x45, 16), .. bytes, .. new byte[8]]
            : [.. new byte[12], 0x86, 0xDD, .. Enumerable.Repeat((byte)0x60, 24), .. bytes, .. new byte[8]];

        Assert.That(Loopback.IsMeant(frame), Is.EqualTo(expected));
        for (int length = 0; length < frame.Length; length++)
            Assert.That(() => Loopback.IsMeant(frame.AsSpan(0, length)), Throws.Nothing);
    }

    [Test]
    public void IsMeant_OtherThanAnIpPacket_IsNot() => Assert.That(Loopback.IsMeant([.. new byte[12], 8, 6, .. new byte[46]]), Is.False);
}
