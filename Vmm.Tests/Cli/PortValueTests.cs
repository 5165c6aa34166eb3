using System.Net;
using NUnit.Framework;
using Vmm.Cli;
using Vmm.Devices.Backends.Net;

namespace Vmm.Tests.Cli;

public class PortValueTests
{
    [TestCase("8080:80", "127.0.0.1", 8080, 80, false)]
    [TestCase("tcp:1:65535", "127.0.0.1", 1, 65535, false)]
    [TestCase("udp:5353:53", "127.0.0.1", 5353, 53, true)]
    [TestCase("0.0.0.0:80:80", "0.0.0.0", 80, 80, false)]
    [TestCase("udp:[::1]:80:81", "::1", 80, 81, true)]
    public void Parse_Port_IsThat(string text, string address, int host, int guest, bool isUdp) =>
        Assert.That(PortValue.Parse(Value(text)), Is.EqualTo(new ForwardedPort(IPAddress.Parse(address), host, guest, isUdp)));

    [TestCase("80", "is not HOST:GUEST")]
    [TestCase("", "is not HOST:GUEST")]
    [TestCase("0:80", "is not HOST:GUEST")]
    [TestCase("80:65536", "is not HOST:GUEST")]
    [TestCase("+80:80", "is not HOST:GUEST")]
    [TestCase("80: 80", "is not HOST:GUEST")]
    [TestCase("sctp:80:80", "has no address before its ports")]
    [TestCase("::1:80:80", "has no address before its ports")]
    [TestCase("80:80+80:81", "has port 80 of 127.0.0.1 twice")]
    public void ParseAll_Nonsense_IsRefused(string text, string problem) =>
        Assert.That(() => PortValue.ParseAll(Value(text)), Throws.TypeOf<UsageException>().With.Message.Contains(problem).And.Message.StartsWith("--port: "));

    [Test]
    public void ParseAll_SamePortForTcpAndUdpAndOtherAddresses_AreAll() =>
        Assert.That(PortValue.ParseAll(Value("53:53+udp:53:53+127.0.0.2:53:54")), Has.Count.EqualTo(3));

    [TestCase("user,ports=1:1", "unknown key 'ports'")]
    [TestCase("user,port=1", "is not HOST:GUEST")]
    [TestCase("user,tap=t", "unknown key 'tap'")]
    [TestCase("user,port=80:80+udp:53:5353", "'udp:127.0.0.1:53:5353' needs host=on")]
    [TestCase("user,host=off,port=udp:53:5353", "needs host=on")]
    [TestCase("user,host=yes", "host='yes'")]
    public void Net_UserWithNonsense_IsRefused(string text, string problem) =>
        Assert.That(() => NetOption.Parse(text), Throws.TypeOf<UsageException>().With.Message.Contains(problem));

    [TestCase("user,host=on,port=80:80+udp:53:5353")]
    [TestCase("user,host=off,port=80:80")]
    public void Net_User_IsADevice(string text) => Assert.That(() => NetOption.Parse(text), Throws.Nothing);

    private static OptionValue Value(string text) => new("--port", null, text);
}
