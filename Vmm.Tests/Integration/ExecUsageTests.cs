using NUnit.Framework;
using Tmds.Linux;
using Vmm.Tests.Integration.Linux.Devices;

namespace Vmm.Tests.Integration;

/// <summary><c>vmm exec</c> as far as it gets without a guest.</summary>
public sealed class ExecUsageTests : VmmTest
{
    [Test]
    public void Matrix_ReportThatCannotBeWritten_IsToldBeforeAGuestRuns()
    {
        string config = Path.Combine(Scratch, "vmm.toml");
        File.WriteAllText(config, "kernel = \"./nothing\"\n[[matrix]]\nname = \"it\"\n");

        VmmResult result = StartVmm("exec", "--matrix", "--config", config, "--report", $"{Scratch}/no/such/file", "--", "true").WaitForEnd();

        Assert.That(result, Is.EqualTo(new VmmResult(125, "", $"vmm: --report {Scratch}/no/such/file: cannot open {Scratch}/no/such/file: No such file or directory (errno 2)\n")));
    }

    [TestCase(125, "exec", "--", "true")]
    [TestCase(125, "exec", "--config", "vmm.toml", "--", "true")]
    public void WorkingDirectory_ThatWasRemoved_IsToldInOneLine(int status, params string[] arguments)
    {
        string gone = Path.Combine(Scratch, "gone");
        (int ended, string output) = HostCommand.TryRun("sh", ["-c", "mkdir \"$1\"; cd \"$1\"; rmdir \"$1\"; shift; exec \"$@\"", "sh", gone, .. VmmProcess.Command, .. arguments]);

        Assert.That(output.Trim(), Does.Match("^vmm: (the working directory was removed, or .*|--config: cannot open vmm.toml: No such file .*)$"));
        Assert.That(ended, Is.EqualTo(status));
    }

    [Test]
    public void MatrixProcess_ParentIsGone_IsKilled()
    {
        VmmResult result = StartVmm("exec", "--matrix-process", "1", "--no-config", "--", "true").WaitForEnd();

        Assert.That(result, Is.EqualTo(new VmmResult(128 + LibC.SIGKILL, "", "")));
    }

    [Test]
    public void Attach_DryRun_RunsNothing()
    {
        VmmResult result = StartVmm("exec", "--attach", "it", "--dry-run", "--", "true").WaitForEnd();

        Assert.That(result, Is.EqualTo(new VmmResult(125, "", "vmm: --attach and --dry-run cannot stand together: the guest runs already\n")));
    }
}
