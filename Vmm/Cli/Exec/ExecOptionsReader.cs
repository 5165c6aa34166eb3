using Vmm.Boot;
using Vmm.Guest;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Cli.Exec;

/// <summary>Turns the words of <see cref="ExecOptions"/> into the guest that runs the command.</summary>
internal static class ExecOptionsReader
{
    private const string RootTag = "root";

    // overlayfs, whose layer it is, refuses a directory on which the guest's kernel mounts something by itself (EREMOTE).
    private const string RootMounts = ",submounts=off";

    private const string FirstDisk = "vda";
    private const string FirstConsole = "hvc0";
    private const int SeedBytes = 32;
    private const int MaxTimeoutDays = 24;      // what milliseconds in 31 bits hold

    // Variables that a command is given without being asked for.
    private static readonly string[] s_variables = ["PATH", "TERM", "LANG"];

    private static readonly string[] s_sbin = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

    /// <summary>The command.</summary>
    /// <param name="options">The options.</param>
    /// <param name="isTerminal">Whether standard input, output and error are a terminal here.</param>
    /// <param name="isErrorOutput">Whether standard output and error are the same file here.</param>
    /// <exception cref="UsageException">A value is wrong.</exception>
    public static GuestCommand ReadCommand(ExecOptions options, (bool Input, bool Output, bool Error) isTerminal, bool isErrorOutput = false)
    {
        bool hasTerminal = options.Tty || (!options.NoTty && isTerminal is { Input: true, Output: true });
        if (options.Command.Count == 0 && !isTerminal.Input && !hasTerminal)
            throw new UsageException("no command: write it behind --; without one a shell runs, but only on a terminal");
        if (options.User is "")
            throw new OptionValue("--user", null, options.User).Refuse("is empty: name a user");
        if (options.WorkDir is not (null or ['/', ..]))
            throw new OptionValue("--workdir", null, options.WorkDir).Refuse("is not an absolute path");
        return new GuestCommand
        {
            Arguments = options.Command,
            Environment = ReadEnvironment(options, withShell: options.Command.Count == 0),
            Directory = options.WorkDir ?? ProcessText.CurrentDirectory(),
            IsDirectoryOptional = options.WorkDir is null,
            User = options.User ?? "",
            HasTerminal = hasTerminal,
            // Apart where it is none here, as with 2>FILE; but where output is none here either, which takes --tty, all comes by the guest's terminal.
            HasTerminalError = hasTerminal && (isTerminal.Error || !isTerminal.Output),
            IsErrorOutput = !hasTerminal && isErrorOutput,
            IsQuiet = options.Quiet,
            Umask = ProcessUmask.Read(),
        };
    }

    /// <summary>How long all of it may take; null for ever.</summary>
    /// <exception cref="UsageException">It is not a time.</exception>
    public static TimeSpan? ReadTimeout(ExecOptions options) => options.Timeout is null
        ? null
        : DurationValue.Parse(new OptionValue("--timeout", null, options.Timeout), TimeSpan.FromDays(MaxTimeoutDays), $"{MaxTimeoutDays * 24}h");

    /// <summary>Makes sure of all options but those of <see cref="ReadCommand"/> and <see cref="ReadTimeout"/>, before anything is looked for or made.</summary>
    /// <exception cref="UsageException">A value is wrong.</exception>
    public static void Check(ExecOptions options)
    {
        if (options.Name is string name)
            GuestDirectory.CheckName("--name", name);
        (ulong memory, _) = MemoryOption.Parse(options.Memory ?? RunOptionsReader.DefaultMemory);
        if (!options.ReadWrite && ReadOverlay(options) > memory)
            throw new OptionValue("--overlay", null, options.Overlay!).Refuse($"is more than the memory of the guest, {memory >> 20}M: give it more by {MemoryOption.Name}");
        if (KernelCommandLine.FindUnusable(options.CommandLine ?? "") is string problem)
            throw new UsageException($"--cmdline: {problem}");
        RunOptionsReader.Read(ToRun(options, "KERNEL", "INITRAMFS", "VSOCK"));
    }

    /// <summary>The drivers that the guest needs.</summary>
    /// <param name="options">The options.</param>
    /// <param name="usesConsole">Whether its agent speaks over a console, because the kernel has no vsock.</param>
    /// <exception cref="VmmException">The root is an image without a file system that is known.</exception>
    public static IReadOnlyList<GuestDriver> Drivers(ExecOptions options, bool usesConsole = false)
    {
        List<GuestDriver> drivers = [GuestDriver.VirtioMmio, usesConsole ? GuestDriver.VirtioConsole : GuestDriver.Vsock];
        if (ImageOf(options) is string image)
            drivers.Add(DiskFileSystem.DriverOf("--root", image));
        if (ImageOf(options) is null || options.Fs is not null || Binds(options).Any())
            drivers.Add(GuestDriver.VirtioFs);
        if (!options.ReadWrite)
            drivers.Add(GuestDriver.Overlay);
        if (options.Disk is not null || ImageOf(options) is not null)
            drivers.Add(GuestDriver.VirtioBlock);
        if (options.Net is not null || options.Port is not null)
            drivers.AddRange([GuestDriver.VirtioNet, GuestDriver.PacketSockets, GuestDriver.Ipv6]);
        if (options.Rng is not null)
            drivers.Add(GuestDriver.VirtioRng);
        if (options.Scsi is not null)
            drivers.AddRange([GuestDriver.VirtioScsi, GuestDriver.ScsiDisk]);
        foreach (string text in RepeatableOptions.Values(options.VhostUser))
            drivers.AddRange(GuestDriver.Of(VhostUserOption.TypeOf(text)));
        // Which of them it is, is known once it is open.
        if (options.Vdpa is not null)
            drivers.AddRange([GuestDriver.VirtioNet with { IsOptional = true }, GuestDriver.VirtioBlock with { IsOptional = true }]);
        return drivers;
    }

    /// <summary>Tells the agent what to do.</summary>
    /// <param name="options">The options.</param>
    /// <param name="description">What is told.</param>
    /// <param name="usesConsole">Whether it speaks over a console.</param>
    /// <exception cref="UsageException">A value is wrong.</exception>
    public static void Describe(ExecOptions options, GuestDescription description, bool usesConsole = false)
    {
        if (usesConsole)
            description.Console(FirstConsole);
        Span<byte> seed = stackalloc byte[SeedBytes];
        SystemRandom.Fill(seed);
        description.Seed(seed);
        if (ImageOf(options) is string image)
            description.Disk(FirstDisk, DiskFileSystem.DriverOf("--root", image).Module, isReadOnly: !options.ReadWrite);
        else
            description.Root(RootTag, isReadOnly: !options.ReadWrite);
        if (!options.ReadWrite)
            description.Overlay($"{ReadOverlay(options)}");
        description.Name(options.Name ?? "vmm");
        description.Enter();
        // One that lies in another comes after it, or would be covered.
        foreach ((string tag, _, string target, bool isReadOnly, _) in Binds(options).OrderBy(bind => bind.Target.Count(character => character == '/')))
            description.Bind(tag, target, isReadOnly);
        IReadOnlyList<GuestNetwork> addresses = ExecNetwork.Devices(options);
        for (int i = 0; i < addresses.Count; i++)
        {
            // The kernel counts the interfaces in the order of their slots.
            if (addresses[i].Address is string address)
                description.Address($"eth{i}", address, addresses[i].Gateway);
            if (addresses[i].Resolver is string resolver)
                description.Resolver(resolver);
        }
    }

    /// <summary>The same guest as options of <c>vmm run</c>.</summary>
    /// <param name="options">The options.</param>
    /// <param name="kernel">The kernel's file.</param>
    /// <param name="initramfs">The initramfs's.</param>
    /// <param name="vsock">The socket of the vsock device; null for a console in its place.</param>
    /// <exception cref="UsageException">A value is wrong.</exception>
    public static RunOptions ToRun(ExecOptions options, string kernel, string initramfs, string? vsock)
    {
        string root = options.Root ?? "/";
        string? image = ImageOf(options);
        if (image is null && !FileKind.IsDirectory(root))
            throw new OptionValue("--root", null, root).Refuse("is no directory of this host, and no disk image");
        (List<(string Option, string Path)> writable, List<(string Option, string Path)> readOnly) = Shares(options);
        ReadOnlyShares.Check(writable, readOnly);
        string[] shares =
        [
            .. image is null ? [Share(RootTag, "--root", RealPath.Absolute(root), !options.ReadWrite, options.AllowSetuid) + RootMounts + OwnerOf(options, root)] : Array.Empty<string>(),
            .. Binds(options).Select(bind => Share(bind.Tag, bind.Option, bind.Source, bind.IsReadOnly, options.AllowSetuid)),
            .. RepeatableOptions.Values(options.Fs).Select(text => options.AllowSetuid ? text : FsOption.WithoutPrivileges(text)),
        ];
        string[] disks =
        [
            .. image is null ? Array.Empty<string>() : [$"path={Quoted("--root", image)}{(options.ReadWrite ? "" : ",readonly=on")}"],
            .. RepeatableOptions.Values(options.Disk),
        ];
        return new RunOptions
        {
            Kernel = kernel,
            Initramfs = initramfs,
            CommandLine = string.Join(' ', (string[])["console=ttyS0", .. options.Dmesg is null && !options.Verbose ? ["quiet"] : Array.Empty<string>(), options.CommandLine ?? ""]).Trim(),
            Cpus = options.Cpus,
            Memory = options.Memory,
            Serial = "null",    // the kernel's log is read in this process
            Net = RepeatableOptions.ToValue(NetOption.Name, [.. ExecNetwork.Devices(options).Select(address => address.Device)]),
            Fs = RepeatableOptions.ToValue("--root and --bind", shares),
            Disk = RepeatableOptions.ToValue("--root", disks),
            Vsock = vsock is null ? null : $"cid=3,socket={Quoted("--vsock", vsock)},guest_connections=accept",
            Console = vsock is null ? $"pty,keep={AgentTerminal.Kept >> 20}M" : null,
            Rng = options.Rng,
            Scsi = options.Scsi,
            Vdpa = options.Vdpa,
            VhostUser = options.VhostUser,
            VirtioDiscovery = options.VirtioDiscovery,
            Interrupts = options.Interrupts,
            OnReboot = "exit",
            OnPanic = "exit",
            Decompress = options.Decompress,
            KernelCache = options.KernelCache,
            Entry = options.Entry,
            Force = options.Force,
            Sandbox = options.Sandbox,
            LogLevel = options.LogLevel,
        };
    }

    // What is given twice in the same words, here and in vmm.toml perhaps, is one.
    private static IEnumerable<(string Tag, string Source, string Target, bool IsReadOnly, string Option)> Binds(ExecOptions options)
    {
        Dictionary<string, (string Source, string Option)> targets = [];
        int number = 0;
        foreach ((string? texts, string option) in new[] { (options.Bind, BindOption.Name), (options.BindReadOnly, BindOption.ReadOnlyName) })
        {
            foreach (string text in RepeatableOptions.Values(texts))
            {
                (string source, string target) = BindOption.Parse(option, text);
                source = Path.TrimEndingDirectorySeparator(source);
                if (targets.TryGetValue(target, out (string Source, string Option) other))
                {
                    if (other == (source, option))
                        continue;
                    throw new OptionValue(option, null, text).Refuse($"is for {target} in the guest, and so is {other.Source} ({other.Option}): write DIR:GUESTDIR with another GUESTDIR");
                }
                targets.Add(target, (source, option));
                yield return ($"bind{number++}", source, target, option == BindOption.ReadOnlyName, option);
            }
        }
    }

    /// <summary>The directories that the guest gets, but a root that it may only read: those that it may write to, and those that it may only read; each with the option that says so.</summary>
    /// <exception cref="UsageException">A value is wrong.</exception>
    public static (List<(string Option, string Path)> Writable, List<(string Option, string Path)> ReadOnly) Shares(ExecOptions options)
    {
        List<(string Option, string Path)> writable = [], readOnly = [];
        if (options.ReadWrite && ImageOf(options) is null)
            writable.Add(("--rw", options.Root ?? "/"));
        foreach ((_, string source, _, bool isReadOnly, string option) in Binds(options))
            (isReadOnly ? readOnly : writable).Add((option, source));
        foreach (string text in RepeatableOptions.Values(options.Fs))
        {
            if (FsOption.Source(text) is { } share && FileKind.IsDirectory(share.Path))     // who starts the daemon tells of one that is missing
                (share.IsReadOnly ? readOnly : writable).Add((FsOption.Name, share.Path));
        }
        return (writable, readOnly);
    }

    private static bool IsOfRoot(ExecOptions options) => options.User?.Split(':')[0] is null or "root" or "0";

    /// <summary>The value of SUDO_UID for a command that is root's in the guest, where this process is the ordinary user <paramref name="caller"/>, whose the directories of here
    /// are. By it git takes that owner for the command's own. Null where nobody needs it.</summary>
    internal static string? SudoUser(ExecOptions options, uint caller) => caller != 0 && IsOfRoot(options) ? $"{caller}" : null;

    // A tree that is the caller's own belongs to root in the guest, as its programs expect, unless the command is to be another user's.
    private static string OwnerOf(ExecOptions options, string root)
    {
        if (!IsOfRoot(options))
            return "";
        using FileDescriptor directory = FileTree.OpenDirectory(root);
        using HeldDescriptor held = directory.Hold();
        return FileOwner.User != 0 && FileTree.GetStatus(held, out FileStatus status) == 0 && status.UserId == FileOwner.User ? ",owner=root" : "";
    }

    // The image that is the root, if it is one.
    private static string? ImageOf(ExecOptions options) => FileKind.IsFile(options.Root) ? RealPath.Absolute(options.Root) : null;

    private static string Share(string tag, string option, string source, bool isReadOnly, bool allowsSetuid) =>
        $"tag={tag},source={Quoted(option, source)}{(isReadOnly ? ",readonly=on" : allowsSetuid ? "" : ",privileged=off")}";

    /// <summary>A path as a value of a key=value list, in which quotes protect commas and stand for nothing else.</summary>
    /// <exception cref="UsageException">It has a quote in it.</exception>
    internal static string Quoted(string option, string path) => path.Contains('"', StringComparison.Ordinal)
        ? throw new OptionValue(option, null, path).Refuse("has a quote (\") in it, which cannot be passed on: give it by a symbolic link")
        : path.Contains(',', StringComparison.Ordinal) ? $"\"{path}\"" : path;

    // In bytes; null if nothing is said.
    private static ulong? ReadOverlay(ExecOptions options)
    {
        if (options.Overlay is not { } text)
            return null;
        return SizeValue.Parse(text.Contains('=') ? KeyValueList.Parse("--overlay", text, "size").Find("size")!.Value : new OptionValue("--overlay", null, text));
    }

    /// <summary>The PATH of an ordinary user with what root has, where it lacks that: the command runs as root in the guest.</summary>
    internal static string WithSbin(string path)
    {
        IEnumerable<string> missing = s_sbin.Except(path.Split(':'));
        return string.Join(':', path.Length == 0 ? missing : missing.Prepend(path));
    }

    private static bool IsWorkingDirectory(string path)
    {
        try
        {
            using FileDescriptor named = FileTree.OpenDirectory(path), here = FileTree.OpenDirectory(".");
            return FileKind.IsSame(named, here);
        }
        catch (ErrnoException)
        {
            return false;   // it is not there any more
        }
    }

    private static List<string> ReadEnvironment(ExecOptions options, bool withShell)
    {
        var variables = new Dictionary<string, string>();
        foreach (string name in s_variables)
            Add(name, ProcessText.Variable(name));
        if (withShell)
            Add("SHELL", ProcessText.Variable("SHELL"));
        // Another root, or another user, has another home, and so may a guest that runs already.
        if (options is { Attach: null, User: null } && (options.Root is null || (options.Root.Length > 0 && RealPath.Absolute(options.Root) == "/")))
            Add("HOME", ProcessText.Variable("HOME"));
        if (IsOfRoot(options) && variables.TryGetValue("PATH", out string? path))
            Add("PATH", WithSbin(path));
        Add("SUDO_UID", SudoUser(options, FileOwner.User));
        // The name that the user went to the directory by, of which links may be a part. The agent sets another PWD where it leads elsewhere in the guest.
        if (options.WorkDir is null && ProcessText.Variable("PWD") is ['/', ..] logical && IsWorkingDirectory(logical))
            Add("PWD", logical);
        foreach (string text in RepeatableOptions.Values(options.Env))
        {
            (string name, string? value) = EnvironmentOption.Parse(text);
            Add(name, value);
        }
        return [.. variables.Select(variable => $"{variable.Key}={variable.Value}")];

        void Add(string name, string? value)
        {
            if (value is not null)
                variables[name] = value;
        }
    }
}
