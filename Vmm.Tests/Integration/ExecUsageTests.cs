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

    // What a file calls its guests reaches the terminal: none of that may turn the direction of writing there. And it is no option.
    [Test]
    public void Matrix_NamesThatTryTricks_AreShownAsTheyAre()
    {
        if (!VmmProcess.IsNative)
            Assert.Ignore("each guest of a matrix is a process of vmm's own, which only the binary starts: VMM_BINARY");
        File.WriteAllText(Path.Combine(Scratch, "vmm.toml"), "kernel = \"./nothing\"\n[[matrix]]\nname = \"a\u202egnp.exe\"\n[[matrix]]\nname = \"--\"\n");

        (int status, string output) = HostCommand.TryRun("sh", ["-c", "cd \"$1\"; shift; exec \"$@\"", "sh", Scratch, .. VmmProcess.Command, "exec", "--matrix", "--", "true"]);

        Assert.That(status, Is.EqualTo(1), output);
        Assert.That(output, Does.Match(@"(?m)^FAIL  a\\u202egnp\.exe \(status 125\) ").And.Match(@"(?m)^a\\u202egnp\.exe     125 "));
        Assert.That(output, Does.Match(@"(?m)^-- +125 ").And.Not.Contains("\u202e"));
        Assert.That(output, Does.Match(@"(?m)^FAIL  -- \(status 125\) in .*\nvmm: .*/vmm\.toml: line 1: kernel: cannot open .*/nothing"));
    }

    [Test]
    public void MatrixProcess_ParentIsGone_IsKilled()
    {
        VmmResult result = StartVmm("exec", "--matrix-process", "1", "--no-config", "--", "true").WaitForEnd();

        Assert.That(result, Is.EqualTo(new VmmResult(128 + LibC.SIGKILL, "", "")));
    }

    [TestCase(1, "run")]
    [TestCase(125, "exec")]
    public void HugePages_OfASizeThatTheHostLacks_AreToldOf(int status, string verb)
    {
        if (KvmTest.WhyNoKvm() is string reason)
            Assert.Ignore(reason);
        string[] guest = ["--force", "--kernel", Payloads.Path("hello"), "--memory", "size=64M,hugepages=on,hugepage_size=16M"];

        VmmResult result = StartVmm([verb, .. guest, .. verb == "exec" ? ["--", "true"] : Array.Empty<string>()]).WaitForEnd();

        Assert.That(result.ExitCode, Is.EqualTo(status), result.Summary);
        Assert.That(result.Errors, Does.Match("\\Avmm: --memory: this host has no huge pages of 16M: [^\n]*\n\\z"));
    }

    [Test]
    public void Attach_DryRun_RunsNothing()
    {
        VmmResult result = StartVmm("exec", "--attach", "it", "--dry-run", "--", "true").WaitForEnd();

        Assert.That(result, Is.EqualTo(new VmmResult(125, "", "vmm: --attach and --dry-run cannot stand together: the guest runs already\n")));
    }
}
