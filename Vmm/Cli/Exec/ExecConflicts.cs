namespace Vmm.Cli.Exec;

/// <summary>What cannot stand together on the command line of <c>vmm exec</c>: nothing of it is ignored without a word.</summary>
internal static class ExecConflicts
{
    private const string Running = "the guest runs already";
    private const string Several = "the guests run side by side, and one only can have it";
    private const string OfMatrix = "each of the guests is one of the variants";

    // What is for a guest that is started.
    private static readonly (string Option, Func<ExecOptions, bool> IsGiven)[] s_ofGuest =
    [
        ("--kernel", options => options.Kernel is not null), ("--modules", options => options.Modules is not null), ("--cmdline", options => options.CommandLine is not null),
        ("--root", options => options.Root is not null), ("--rw", options => options.ReadWrite), ("--allow-setuid", options => options.AllowSetuid), ("--overlay", options => options.Overlay is not null),
        (BindOption.Name, options => options.Bind is not null), (BindOption.ReadOnlyName, options => options.BindReadOnly is not null),
        (ExecNetwork.PortOption, options => options.Port is not null), ("--dmesg", options => options.Dmesg is not null), ("--name", options => options.Name is not null), ("--verbose", options => options.Verbose),
        ("--matrix", options => options.Matrix), ("--only", options => options.Only is not null), ("--report", options => options.Report is not null),
        ($"--{MatrixRun.ParentOption}", options => options.Parent is not null), ("--config", options => options.Config is not null), ("--no-config", options => options.NoConfig), ("--dry-run", options => options.DryRun),
        ("--cpus", options => options.Cpus is not null), ("--memory", options => options.Memory is not null), (NetOption.Name, options => options.Net is not null),
        (FsOption.Name, options => options.Fs is not null), (DiskOption.Name, options => options.Disk is not null), (RngOption.Name, options => options.Rng is not null),
        (ScsiOption.Name, options => options.Scsi is not null), (VdpaOption.Name, options => options.Vdpa is not null),
        (VhostUserOption.Name, options => options.VhostUser is not null), ("--virtio-discovery", options => options.VirtioDiscovery is not null),
        ("--interrupts", options => options.Interrupts is not null), ("--decompress", options => options.Decompress is not null),
        ("--kernel-cache", options => options.KernelCache is not null), ("--entry", options => options.Entry is not null), ("--force", options => options.Force),
    ];

    // Option, its rival, and why.
    private static readonly (string Option, string Other, string Why, Func<ExecOptions, bool> IsGiven)[] s_pairs =
    [
        .. s_ofGuest.Select(other => ("--attach", other.Option, Running, (Func<ExecOptions, bool>)(options => options.Attach is not null && other.IsGiven(options)))),
        ("--matrix", "--name", Several, options => options is { Matrix: true, Name: not null }),
        ("--matrix", "--dmesg FILE", Several, options => options is { Matrix: true, Dmesg: not (null or "-") }),
        ("--matrix", ExecNetwork.PortOption, Several, options => options is { Matrix: true, Port: not null }),
        ("--matrix", "--only", OfMatrix, options => options is { Matrix: true, Only: not null }),
        ("--matrix", "--dry-run", "write --only NAME to see one of the guests", options => options is { Matrix: true, DryRun: true }),
        ("--matrix", "--no-config", "the guests stand in that file", options => options is { Matrix: true, NoConfig: true }),
        ("--only", "--no-config", "the guests stand in that file", options => options is { Only: not null, NoConfig: true }),
        ("--config", "--no-config", "leave one of them out", options => options is { Config: not null, NoConfig: true }),
        ("--rw", "--overlay", "what is written goes to the root itself", options => options is { ReadWrite: true, Overlay: not null }),
        ("--quiet", "--verbose", "leave one of them out", options => options is { Quiet: true, Verbose: true }),
        ("--tty", "--no-tty", "leave one of them out", options => options is { Tty: true, NoTty: true }),
    ];

    /// <summary>Makes sure that <paramref name="options"/>, as the command line gave them, do not contradict each other.</summary>
    /// <exception cref="UsageException">They do; the message names both and says why.</exception>
    public static void Check(ExecOptions options)
    {
        foreach ((string option, string other, string why, Func<ExecOptions, bool> isGiven) in s_pairs)
        {
            if (isGiven(options))
                throw new UsageException($"{option} and {other} cannot stand together: {why}");
        }
        if (options is { Report: not null, Matrix: false })
            throw new UsageException("--report: has no effect without --matrix");
    }
}
