namespace Vmm.Tests.Integration.Linux;

/// <summary>A Linux guest to boot: one of Debian's kernels, the test guest's initramfs, and a script that it runs before it powers off
/// (firmware/guest/init).</summary>
internal sealed record LinuxGuest
{
    /// <summary>Comes before the script's status, in the guest's last line.</summary>
    private const string Marker = "7205759";

    private static readonly string s_artifacts = Environment.GetEnvironmentVariable("VMM_ARTIFACTS") is { Length: > 0 } path
        ? path : RepositoryRoot.Combine("artifacts");

    /// <summary>Which of Debian's kernels: "cloud" or "generic".</summary>
    public string Flavour { get; init; } = "cloud";

    /// <summary>Its file: "vmlinuz", the bzImage, or "vmlinux", the ELF file in it.</summary>
    public string Image { get; init; } = "vmlinuz";

    /// <summary>How many vCPUs.</summary>
    public int Cpus { get; init; } = 1;

    /// <summary>What else to say of them: keys of --cpus.</summary>
    public string CpuKeys { get; init; } = "";

    /// <summary>The memory, as for --memory.</summary>
    public string Memory { get; init; } = "256M";

    /// <summary>What to add to the kernel's command line.</summary>
    public string CommandLine { get; init; } = "";

    /// <summary>Other options of <c>vmm run</c>.</summary>
    public IReadOnlyList<string> Options { get; init; } = [];

    /// <summary>A shell script; without one, the guest runs a shell on its console.</summary>
    public string? Script { get; init; }

    /// <summary>Whether the script has the console as its terminal. If not, its output is passed on unchanged.</summary>
    public bool Interactive { get; init; }

    /// <summary>Whether the guest has the tools too: iperf3, ethtool, mkfs.ext4, e2fsck, sfdisk.</summary>
    public bool HasTools { get; init; }

    /// <summary>The release of the kernel that boots.</summary>
    public string Release => File.ReadAllText(Artifact("kernels", Flavour, "release")).Trim();

    /// <summary>What the guest says last when its script has ended with <paramref name="status"/>.</summary>
    public static string Ended(int status) => $"\x1e{Marker}:{status}";

    /// <summary>The arguments of vmm, after the initramfs is made in <paramref name="directory"/>.</summary>
    public string[] Prepare(string directory)
    {
        string initramfs = Path.Combine(directory, "initramfs");
        File.Copy(Artifact("guest", $"{Flavour}.cpio"), initramfs, overwrite: true);
        using FileStream end = new(initramfs, FileMode.Append);
        if (HasTools)
        {
            using FileStream tools = File.OpenRead(Artifact("guest", "tools.cpio"));
            tools.CopyTo(end);
        }
        if (Script is not null)
        {
            var job = new CpioArchive(end);
            job.AddDirectory("job");
            job.AddFile("job/settings", $"marker={Marker} interactive={(Interactive ? 1 : 0)}\n");
            job.AddFile("job/command", Script);
            job.End();
        }
        return
        [
            "run", "--kernel", Artifact("kernels", Flavour, Image), "--initramfs", initramfs, "--cpus", CpuKeys.Length == 0 ? $"{Cpus}" : $"boot={Cpus},{CpuKeys}", "--memory", Memory,
            "--cmdline", $"console=ttyS0 quiet panic=-1 {LinuxHost.GuestOptions} {CommandLine}", .. Options,
        ];
    }

    /// <summary>Why there is nothing to boot, or null.</summary>
    public static string? WhyMissing()
    {
        foreach (string flavour in new[] { "cloud", "generic" })
        {
            if (!File.Exists(Artifact("kernels", flavour, "release")))
                return $"the {flavour} kernel is missing: run scripts/setup test";
            if (!File.Exists(Artifact("guest", $"{flavour}.cpio")))
                return $"the {flavour} guest is missing: run firmware/guest/build {flavour}";
        }
        if (!File.Exists(Artifact("guest", "tools.cpio")))
            return "the guest's tools are missing: run firmware/guest/build tools";
        if (!File.Exists(Artifact("guest", "debian.img")))
            return "the disk with Debian is missing: run firmware/guest/build debian";
        return null;
    }

    /// <summary>A file that the scripts have made.</summary>
    public static string Artifact(params string[] parts) => Path.Combine([s_artifacts, .. parts]);
}
