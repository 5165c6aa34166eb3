using NLog;
using NUnit.Framework;

namespace Vmm.Tests.Fuzz;

/// <summary>What fails a run of any input.</summary>
[NonParallelizable]     // it counts descriptors, and changes where the log goes
public class FuzzRunTests
{
    [TestCase("Vmm.Vhost.User.Backend")]
    [TestCase("Vmm.Devices.Backends.FileSystem")]
    public void All_ErrorInTheLog_Fails(string logger) =>
        Assert.That(() => FuzzRun.All(1, _ => LogManager.GetLogger(logger).Error("what must not be")), Throws.InstanceOf<AssertionException>().With.Message.Contains("what must not be"));

    [Test]
    public void All_WarningInTheLog_IsTheInputs() => FuzzRun.All(1, _ => LogManager.GetLogger("Vmm.Devices.Backends.FileSystem").Warn("the guest is wrong"));

    [Test]
    public void All_Exception_FailsAndNamesTheRun() =>
        Assert.That(() => FuzzRun.All(1, _ => throw new InvalidOperationException("a fault")), Throws.InstanceOf<AssertionException>().With.Message.Contains("VMM_FUZZ_FIRST=").And.Message.Contains("a fault"));
}
