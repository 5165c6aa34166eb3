using NUnit.Framework;
using Tmds.Linux;
using Vmm.Tests.Integration.Linux;
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

        Assert.That(result, Is.EqualTo(new VmmResult(125, "", $"vmm: --report {Scratch}/no/such/file: cannot open {Scratch}/no/such/file: No such file or directory (errno 2): make its directory first, or give another path\n")));
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
    public void WorkingDirectory_ThatWasRemovedWhereAnotherOneIsGiven_IsNotNeeded()
    {
        string gone = Path.Combine(Scratch, "gone");
        (int status, string output) = HostCommand.TryRun("sh", ["-c", "mkdir \"$1\"; cd \"$1\"; rmdir \"$1\"; shift; exec \"$@\"", "sh", gone, .. VmmProcess.Command,
            "exec", "--workdir", "/", "--kernel", "/no/such/kernel", "--", "true"]);

        Assert.That(output.Trim(), Does.StartWith("vmm: kernel: cannot open /no/such/kernel: No such file"));
        Assert.That(status, Is.EqualTo(125));
    }

    // The guests run, and what they have shown is in the report.
    [TestCase("> /dev/full", "No space left on device")]
    [TestCase(">&-", "Bad file descriptor")]
    [TestCase("| true", "Broken pipe")]
    public void Matrix_OutputThatCannotBeWritten_RunsAllAndWritesTheReport(string output, string why)
    {
        if (!VmmProcess.IsNative)
            Assert.Ignore("each guest of a matrix is a process of vmm's own, which only the binary starts: VMM_BINARY");
        File.WriteAllText(Path.Combine(Scratch, "vmm.toml"), "kernel = \"./nothing\"\n[[matrix]]\nname = \"one\"\n[[matrix]]\nname = \"two\"\n");

        // The reader is gone before the first variant has ended.
        string command = output[0] == '|' ? $"{{ sleep 0.5; \"$@\"; echo status $? >&2; }} {output}" : $"\"$@\" {output}; echo status $? >&2";
        (_, string errors) = HostCommand.TryRun("sh", ["-c", $"cd \"$1\"; shift; {command}", "sh", Scratch, .. VmmProcess.Command, "exec", "--matrix", "--report", "report.xml", "--", "true"]);

        Assert.That(errors, Does.Match($"\\Avmm: --matrix: cannot write to standard output: {why}.*: a part of the results was not shown\nstatus 1\n\\z"));
        Assert.That(File.ReadAllText(Path.Combine(Scratch, "report.xml")), Does.Contain("tests=\"2\" failures=\"2\"").And.Contain("name=\"two\""));
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

    // Then nobody is told how a child has ended, and a program inherits that from whoever has started it.
    [Test]
    public void Matrix_ChildrenAreIgnoredByTheParent_FailuresAreSeen()
    {
        if (!VmmProcess.IsNative)
            Assert.Ignore("each guest of a matrix is a process of vmm's own, which only the binary starts: VMM_BINARY");
        File.WriteAllText(Path.Combine(Scratch, "vmm.toml"), "kernel = \"./nothing\"\n[[matrix]]\nname = \"it\"\n");

        (int status, string output) = HostCommand.TryRun("bash", ["-c", "trap '' CHLD; cd \"$1\"; shift; exec \"$@\"", "sh", Scratch, .. VmmProcess.Command, "exec", "--matrix", "--", "true"]);

        Assert.That(output, Does.Match(@"(?m)^FAIL  it \(status 125\) "));
        Assert.That(status, Is.EqualTo(1), output);
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

    [Test]
    public void DryRun_KernelThatIsThere_PrintsTheMachineAndTheInitramfs()
    {
        string kernel = Kernel("vmlinuz"), modules = Kernel("root");

        VmmResult result = StartVmm("exec", "--no-config", "--dry-run", "--kernel", kernel, "--modules", modules, "--memory", "1G", "--workdir", "/", "--", "echo", "a b").WaitForEnd();

        Assert.That((result.ExitCode, result.Errors), Is.EqualTo((0, "")), result.Summary);
        string[] lines = result.Output.Split('\n');
        Assert.That(lines[0], Does.StartWith($"vmm run --kernel {kernel} --initramfs INITRAMFS --cmdline 'console=ttyS0 quiet' ")
            .And.Contain(" --memory 1G ").And.Contain(" --fs tag=root,source=/,readonly=on").And.Contain(" --vsock cid=3,socket=VSOCK,"));
        Assert.That(lines, Does.Contain("In the initramfs:").And.Contain("  run echo 'a b' in /"));
        Assert.That(lines, Has.Some.Match("^  /init \\([0-9]+ bytes\\)$").And.Some.Match("^  /modules/[0-9]{3}-virtiofs\\.ko \\([0-9]+ bytes\\)$"));
    }

    // As Ubuntu has them. The search is tested by files of our own, but not where root runs the tests.
    [Test]
    public void KernelThatOnlyRootReads_OfAnOrdinaryUser_SaysWhatToDo()
    {
        if (!Environment.IsPrivilegedProcess || !VmmProcess.IsNative)
            Assert.Ignore("needs root, to become another user, and the binary: VMM_BINARY");
        string binary = Path.Combine(Scratch, "vmm"), image = Path.Combine(Scratch, "vmlinuz");
        File.Copy(VmmProcess.Command[0], binary);
        File.Copy(Kernel("vmlinuz"), image);
        HostCommand.Run("chmod", "755", Scratch, binary);
        HostCommand.Run("chmod", "600", image);

        (int status, string output) = HostCommand.TryRun("setpriv",
            "--reuid", "1234", "--regid", "1234", "--clear-groups", "env", "-C", "/", binary, "exec", "--no-config", "--kernel", image, "--", "true");

        Assert.That((status, output), Is.EqualTo((125, $"vmm: kernel {image} is not yours to read: run sudo chmod 0644 {image}\n")));
    }

    private static string Kernel(string name)
    {
        string path = LinuxGuest.Artifact("kernels", "cloud", name);
        if (!Path.Exists(path))
            Assert.Ignore($"{path} is missing: scripts/setup test");
        return path;
    }
}
