using NUnit.Framework;

namespace Vmm.Tests.Integration;

/// <summary>A test that runs the vmm executable with a guest on /dev/kvm. Any /dev/kvm will do, also one that interprets kernel mode.</summary>
[Category("Kvm")]
public abstract class KvmTest : VmmTest
{
    [OneTimeSetUp]
    public void CheckMachine()
    {
        if (WhyNoKvm() is string reason)
            Assert.Ignore(reason);
        if (Payloads.WhyMissing() is string missing)
            Assert.Ignore(missing);
    }

    /// <summary>Starts <c>vmm run</c> with a payload as its kernel. What still runs when the test ends is killed.</summary>
    private protected VmmProcess Start(string payload, params string[] options) =>
        StartVmm(["run", "--kernel", Payloads.Path(payload), .. options]);

    /// <summary>The same, with nobody who reads the output at first.</summary>
    private protected VmmProcess StartUnread(string payload) =>
        Keep(VmmProcess.Start(["run", "--kernel", Payloads.Path(payload)], Temporary, readOutput: false));

    /// <summary>Runs a payload to its end, without input.</summary>
    private protected VmmResult Run(string payload, params string[] options)
    {
        VmmProcess process = Start(payload, options);
        process.EndInput();
        return process.WaitForEnd();
    }

    /// <summary>Why there is no KVM on this machine, or null.</summary>
    internal static string? WhyNoKvm()
    {
        if (!File.Exists("/dev/kvm"))
            return "no /dev/kvm: run on a machine with KVM, or in the emulated KVM host";
        try
        {
            using FileStream kvm = new("/dev/kvm", FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite);
            return null;
        }
        catch (UnauthorizedAccessException)
        {
            return "no access to /dev/kvm: add your user to group kvm";
        }
    }
}
