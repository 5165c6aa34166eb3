using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Tests.Integration.Linux.Devices;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Tests.Integration.Backends;

/// <summary><c>vmm backend net --tap</c>, and a tap that is deleted under it.</summary>
public class NetTapTests : BackendTest
{
    private const int TapNumber = 91;

    [TestCase(false, false)]
    [TestCase(true, false)]
    [TestCase(true, true)]
    public void Tap_IsDeleted_TheConnectionIsClosedAndTheProcessEnds(bool hasFrontEnd, bool hasDriver)
    {
        if (!Environment.IsPrivilegedProcess)
            Assert.Ignore("taps are root's: run as root");
        using var tap = new HostTap(TapNumber);
        VmmProcess process = StartBackend("net", "--tap", tap.Name);
        FrontEndDriver? frontEnd = hasFrontEnd ? ConnectFrontEnd() : null;
        frontEnd?.Get(VhostUserRequest.GetFeatures);
        using FrontEndRing? ring = hasDriver ? frontEnd!.Start() : null;
        tap.Dispose();
        VmmResult result = process.WaitForEnd();
        Assert.That((result.ExitCode, result.Errors), Is.EqualTo((1, $"vmm: net: the tap {tap.Name} was deleted\n")), result.Summary);
        if (frontEnd is not null)
            Assert.That(frontEnd.IsClosed());
        Assert.That(File.Exists(SocketPath), Is.EqualTo(VmmProcess.IsNative), "a confined process may remove nothing");
    }
}
