using CommandLine;

namespace Vmm.Cli.Exec;

/// <summary>The options of <c>vmm exec</c>, as the user wrote them; <see cref="ExecOptionsReader"/> makes sense of them.</summary>
[Verb("exec", HelpText = "Run a command in a guest with this machine's kernel and files: vmm exec [OPTION...] [-- COMMAND [ARG...]].")]
internal sealed class ExecOptions : MachineOptions, ICommandOptions
{
    [Option("kernel", MetaValue = "WHICH", HelpText = "The kernel: the release of one that is installed, or a file, or a tree in which one was built "
        + "(default: the running one, else the newest that is installed).")]
    public string? Kernel { get; set; }

    [Option("modules", MetaValue = "DIR", HelpText = "Its modules (default: where they belong: /lib/modules/RELEASE, or the build tree).")]
    public string? Modules { get; set; }

    [Option("cmdline", MetaValue = "TEXT", HelpText = "Words for the kernel's command line, behind those of vmm.")]
    public string? CommandLine { get; set; }

    [Option("root", MetaValue = "DIR|IMAGE", HelpText = "The guest's root: a directory, or a raw disk image with a file system on it. Nothing in it is changed: "
        + "what is written stays in the guest's memory (default: /).")]
    public string? Root { get; set; }

    [Option("rw", HelpText = "What is written to the root is written to the directory or the image.")]
    public bool ReadWrite { get; set; }

    [Option("allow-setuid", HelpText = "With --rw, --bind or --fs: the guest can make set-user-id programs, file capabilities and device nodes there, which are such on this host, too. Packages "
        + "that are installed may need it.")]
    public bool AllowSetuid { get; set; }

    [Option("overlay", MetaValue = "SIZE", HelpText = "How much may be written to the root's copy in memory, also as size=SIZE (default: half of the "
        + "guest's memory).")]
    public string? Overlay { get; set; }

    [Option("bind", MetaValue = "DIR[:GUESTDIR]", HelpText = "A directory that the guest may write to. Repeatable.")]
    public string? Bind { get; set; }

    [Option("bind-ro", MetaValue = "DIR[:GUESTDIR]", HelpText = "A directory that the guest may only read. Repeatable.")]
    public string? BindReadOnly { get; set; }

    /// <inheritdoc/>
    [Option(NetOption.Option, MetaValue = "DEVICE", HelpText = "A network device: user[,mac=MAC][,port=HOST:GUEST[+...]][,host=on][,vhost_user=on|off] for this host's network by passt, with addresses and "
        + "resolver; or tap=NAME, fd=N[:N...] for inherited tap or macvtap descriptors, tap for one that is made, or socket=PATH for a vhost-user switch; then "
        + "[,ip=ADDRESS/PREFIX[,gateway=ADDRESS]] for the guest's interface, and [,mac=MAC][,queues=PAIRS][,queue_size=N][,mtu=N]. Repeatable.")]
    public override string? Net { get; set; }

    [Option("port", MetaValue = "[udp:][ADDRESS:]HOST:GUEST", HelpText = "A port of this host, of 127.0.0.1 unless an address is given, that leads into the guest, by --net user. "
        + "Repeatable.")]
    public string? Port { get; set; }

    [Option("env", MetaValue = "NAME[=VALUE]", HelpText = "A variable of the command's environment; without a value, as it is here (PATH, TERM and LANG are "
        + "there by default, and HOME). Repeatable.")]
    public string? Env { get; set; }

    [Option("user", MetaValue = "NAME|UID[:GROUP]", HelpText = "Who the command runs as (default: root).")]
    public string? User { get; set; }

    [Option("workdir", MetaValue = "DIR", HelpText = "Its working directory (default: that of here, where the guest has it, else /, but with --rw not /).")]
    public string? WorkDir { get; set; }

    [Option("tty", HelpText = "The command has a terminal, also where there is none here. Its standard error is that terminal, too, and comes on standard output, unless only standard output is a "
        + "terminal here, and standard error is not (2>FILE).")]
    public bool Tty { get; set; }

    [Option("no-tty", HelpText = "The command has no terminal (default: it has one where standard input and output are one).")]
    public bool NoTty { get; set; }

    [Option("timeout", MetaValue = "TIME", HelpText = "How long all of it may take, such as 90s, 10m or 2h; then the status is 124 (default: for ever).")]
    public string? Timeout { get; set; }

    [Option("dmesg", MetaValue = "FILE|-", HelpText = "All that the kernel says goes to this file, or to standard error.")]
    public string? Dmesg { get; set; }

    [Option("quiet", HelpText = "Of a guest that fails, only the one line that says so, without its kernel's. And no lines that only explain: that the guest lacks the working directory, or gets "
        + "less than vmm.toml says.")]
    public bool Quiet { get; set; }

    [Option("verbose", HelpText = "As --dmesg - and --log-level info; and how long each part of the run took.")]
    public bool Verbose { get; set; }

    [Option("name", MetaValue = "NAME", HelpText = "A name for the guest, by which --attach finds it.")]
    public string? Name { get; set; }

    [Option("attach", MetaValue = "NAME", HelpText = "Run the command in the guest of that name, which runs already.")]
    public string? Attach { get; set; }

    [Option("config", MetaValue = "FILE", HelpText = "The file of defaults (default: vmm.toml of this directory or the nearest above it, which may give the guest only what is in its own "
        + "directory, for reading, and no network).")]
    public string? Config { get; set; }

    [Option("no-config", HelpText = "Read no file of defaults.")]
    public bool NoConfig { get; set; }

    [Option("matrix", HelpText = "Run the command in a guest for each [[matrix]] of vmm.toml.")]
    public bool Matrix { get; set; }

    [Option("only", MetaValue = "NAME", HelpText = "Run it in that of the [[matrix]] which has this name.")]
    public string? Only { get; set; }

    [Option("report", MetaValue = "FILE", HelpText = "With --matrix: the results as JUnit XML.")]
    public string? Report { get; set; }

    [Option(MatrixRun.ParentOption, Hidden = true)]
    public string? Parent { get; set; }

    [Option("dry-run", HelpText = "Print what would be run, and what is in the initramfs, and do no more.")]
    public bool DryRun { get; set; }

    /// <inheritdoc/>
    public IReadOnlyList<string> Command { get; set; } = [];

    /// <summary>Whether a vmm.toml that was found, and not the user, has chosen where the kernel's modules are. It is no option.</summary>
    public bool AreModulesFound { get; set; }

    /// <inheritdoc/>
    public override bool TrySet(string name, string value)
    {
        switch (name)
        {
            case "kernel":
                Kernel = value;
                break;
            case "modules":
                Modules = value;
                break;
            case "cmdline":
                CommandLine = value;
                break;
            case "root":
                Root = value;
                break;
            case "overlay":
                Overlay = value;
                break;
            case "bind":
                Bind = value;
                break;
            case "bind-ro":
                BindReadOnly = value;
                break;
            case "port":
                Port = value;
                break;
            case "env":
                Env = value;
                break;
            case "user":
                User = value;
                break;
            case "workdir":
                WorkDir = value;
                break;
            case "timeout":
                Timeout = value;
                break;
            case "dmesg":
                Dmesg = value;
                break;
            case "name":
                Name = value;
                break;
            case "attach":
                Attach = value;
                break;
            case "config":
                Config = value;
                break;
            case "only":
                Only = value;
                break;
            case MatrixRun.ParentOption:
                Parent = value;
                break;
            case "report":
                Report = value;
                break;
            default:
                return base.TrySet(name, value);
        }
        return true;
    }

    /// <inheritdoc/>
    public override bool TrySwitch(string name)
    {
        switch (name)
        {
            case "rw":
                ReadWrite = true;
                break;
            case "allow-setuid":
                AllowSetuid = true;
                break;
            case "tty":
                Tty = true;
                break;
            case "no-tty":
                NoTty = true;
                break;
            case "quiet":
                Quiet = true;
                break;
            case "verbose":
                Verbose = true;
                break;
            case "no-config":
                NoConfig = true;
                break;
            case "matrix":
                Matrix = true;
                break;
            case "dry-run":
                DryRun = true;
                break;
            default:
                return base.TrySwitch(name);
        }
        return true;
    }
}
