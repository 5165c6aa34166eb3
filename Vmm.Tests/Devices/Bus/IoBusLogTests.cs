using NLog;
using NLog.Config;
using NLog.Targets;
using NUnit.Framework;
using Vmm.Devices.Bus;
using Vmm.Vhost;

namespace Vmm.Tests.Devices.Bus;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
[NonParallelizable]   // the logging configuration is the process's
public sealed class IoBusLogTests : IDisposable
{
    private readonly MemoryTarget _log = new() { Layout = "${logger} ${level} ${message}" };
    private readonly LoggingConfiguration? _before;

    public IoBusLogTests()
    {
        LogSetup.Complete();
        _before = LogManager.Configuration;
        var configuration = new LoggingConfiguration();
        configuration.AddRule(LogLevel.Debug, LogLevel.Fatal, _log, "Vmm.Devices.Bus");
        LogManager.Configuration = configuration;
    }

    public void Dispose()
    {
        LogManager.Configuration = _before;
        _log.Dispose();
    }

    [Test]
    public void Unclaimed_SameAddressAgain_IsLoggedOnce()
    {
        var bus = new IoBus("port");
        for (int i = 0; i < 3; i++)
            bus.Read(0x3F6, new byte[1]);
        bus.Write(0x3F6, new byte[2]);
        Assert.That(_log.Logs, Is.EqualTo(new[] { "Vmm.Devices.Bus Debug port: read of 1 bytes at 0x3f6: no device" }));
    }

    [Test]
    public void Unclaimed_EveryAddress_LogsBoundedNumber()
    {
        var bus = new IoBus("port");
        for (ulong address = 0; address < 5000; address++)
            bus.Read(address, new byte[1]);
        Assert.That(_log.Logs, Has.Count.EqualTo(1024));
    }
}
