using NUnit.Framework;
using Vmm.Tests.Integration.Linux.Devices;

namespace Vmm.Tests.Integration.Linux;

/// <content>Recipes of docs/exec.md, run as they stand there. They name no kernel: <c>vmm exec</c> finds the running one.</content>
public partial class ExecTests
{
    [Test]
    public void Recipe_TwoGuestsAndANetwork_Works()
    {
        RequireRunningKernel();
        // vmtap0 and the bridge may be somebody's on another host.
        if (!LinuxHost.IsEmulated)
            Assert.Ignore("the recipe makes a bridge, which is for the emulated host");
        string[] recipe = Recipe("Two guests and a network");
        try
        {
            (int status, string output) = RunRecipe(["set -e", .. recipe]);

            Assert.That(status, Is.Zero, output);
            Assert.That(output, Does.Match("Accepted connection from 10\\.9\\.0\\.2").And.Match("Connecting to host 10\\.9\\.0\\.1").And.Contain("iperf Done."));
        }
        finally
        {
            foreach (string device in (string[])["vmtap0", "vmtap1", "vmbr0"])
                HostCommand.TryRun("ip", "link", "del", device);
        }
    }

    // Here on-kvm-host runs its command at once: this machine is the host that it would start.
    [Test]
    public void Recipe_WithoutKvm_Works()
    {
        RequireRunningKernel();
        if (!LinuxHost.IsEmulated)
            Assert.Ignore("the recipe is for machines without KVM: /out is the emulated host's");
        string command = Recipe("Without KVM").Single(line => line.Contains("/on-kvm-host ", StringComparison.Ordinal));
        HostCommand.Run("sh", "-c", $"mkdir -p {Scratch}/vmm/artifacts/vmm && ln -s {RepositoryRoot.Combine("scripts")} {Scratch}/vmm/ && ln -s {VmmProcess.Command[0]} {Scratch}/vmm/artifacts/vmm/vmm");
        string project = Directory.CreateDirectory(Path.Combine(Scratch, "project")).FullName, script = Path.Combine(project, "run-tests.sh");
        File.WriteAllText(script, "#!/bin/sh\nuname -r; echo x > result; echo y > /out/exec-recipe; exit 3\n");
        HostCommand.Run("chmod", "755", script);
        try
        {
            Assert.That(RunRecipe(command), Is.EqualTo((3, $"{RunningRelease}\n")));
            Assert.That(File.Exists(Path.Combine(project, "result")), Is.True);
            Assert.That(File.ReadAllText("/out/exec-recipe"), Is.EqualTo("y\n"));
        }
        finally
        {
            File.Delete("/out/exec-recipe");
        }
    }

    // A machine's own kernel, where its distribution puts it; the emulated host has it there, too.
    private static void RequireRunningKernel()
    {
        string image = $"/boot/vmlinuz-{RunningRelease}";
        if (!LinuxHost.IsEmulated && !File.Exists(image))
            Assert.Ignore($"{image} is missing");
    }

    private static string RunningRelease => HostCommand.Run("uname", "-r").Trim();

    // The lines of code below a title, up to the next one.
    private static string[] Recipe(string title)
    {
        string text = File.ReadAllText(RepositoryRoot.Combine("docs", "exec.md"));
        string recipe = text[text.IndexOf($"**{title}.**", StringComparison.Ordinal)..];
        int end = recipe.IndexOf("\n**", StringComparison.Ordinal);
        return [.. recipe[..(end < 0 ? recipe.Length : end)].Split('\n').Where(line => line.StartsWith("    ", StringComparison.Ordinal)).Select(line => line[4..])];
    }

    // In a directory of its own, with vmm in PATH.
    private (int Status, string Output) RunRecipe(params string[] lines)
    {
        string bin = Directory.CreateDirectory(Path.Combine(Scratch, "bin")).FullName;
        File.CreateSymbolicLink(Path.Combine(bin, "vmm"), VmmProcess.Command[0]);
        return HostCommand.TryRun("env", "-C", Directory.CreateDirectory(Path.Combine(Scratch, "project")).FullName, $"PATH={bin}:{Environment.GetEnvironmentVariable("PATH")}", "USER=root",
            $"TMPDIR={Temporary}", "sh", "-c", string.Join('\n', lines));
    }
}
