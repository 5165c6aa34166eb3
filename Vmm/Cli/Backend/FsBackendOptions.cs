using System.Globalization;
using CommandLine;
using Vmm.Devices.Backends.FileSystem;
using Vmm.Devices.Virtio;
using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Cli.Backend;

/// <summary>The options of <c>vmm backend fs</c>; those that the virtiofsd in Rust has, too, have its names.</summary>
[Verb("fs", HelpText = "A directory.")]
internal sealed class FsBackendOptions : BackendOptions
{
    /// <summary>The options that may be given more than once.</summary>
    public const string TranslateUidName = "--translate-uid", TranslateGidName = "--translate-gid", UidMapName = "--uid-map", GidMapName = "--gid-map";

    /// <summary>The option for both of <see cref="NoLocksNames"/>: <see cref="FsCommandLine"/> writes these in its place.</summary>
    public const string NoHostLocksName = "--no-host-locks";

    /// <summary>The options for one kind of lock each.</summary>
    public static readonly string[] NoLocksNames = ["--no-posix-lock", "--no-flock"];

    // Descriptors of the process itself, and of rings and memory: with fewer than this nothing is left for files.
    private const ulong FewestDescriptors = 256;

    private const string MandatoryHandles = "mandatory";

    private static readonly BoundedLog s_log = new("Vmm.Cli.Backend");

    private bool _hasLog;

    [Option("shared-dir", MetaValue = "DIR", HelpText = "The directory. QEMU's way to write this and other options is taken, too: -o source=DIR,xattr,...")]
    public string? SharedDir { get; set; }

    [Option("tag", MetaValue = "NAME", HelpText = "By what name the guest mounts it (default: the front-end says).")]
    public string? Tag { get; set; }

    [Option("readonly", HelpText = "The guest can change nothing.")]
    public bool ReadOnly { get; set; }

    [Option("cache", MetaValue = "WHAT", HelpText = "What the guest keeps in its caches: auto, names and attributes for a second, data until the file is opened "
        + "again; always, everything; metadata, names and attributes only; never, nothing (default: auto).")]
    public string? Cache { get; set; }

    [Option("timeout", MetaValue = "SECONDS", HelpText = "For how long the guest keeps names and attributes, such as 1 or 0.5 (default: what --cache says).")]
    public string? Timeout { get; set; }

    [Option("allow-mmap", HelpText = "With --cache metadata or never, programs of the guest's can map a file shared; only where the host does not write, too.")]
    public bool AllowMmap { get; set; }

    [Option("writeback", HelpText = "The guest collects writes and passes them on later; only where the host does not write, too.")]
    public bool Writeback { get; set; }

    [Option("xattr", HelpText = "Extended attributes; they are on anyway.")]
    public bool Xattr { get; set; }

    [Option("no-xattr", HelpText = "No extended attributes.")]
    public bool NoXattr { get; set; }

    [Option("xattrmap", MetaValue = "RULES", HelpText = "Which names extended attributes have on the host: rules as virtiofsd has them (default: trusted.* is "
        + "kept as user.virtiofs.trusted.*, all others are the same).")]
    public string? XattrMapText { get; set; }

    [Option("posix-acl", HelpText = "POSIX ACLs; they are on anyway, unless numbers of users or groups are translated.")]
    public bool PosixAcl { get; set; }

    [Option("no-posix-acl", HelpText = "No POSIX ACLs.")]
    public bool NoPosixAcl { get; set; }

    [Option("security-label", HelpText = "The guest labels files as it makes them (SELinux, Smack); --xattrmap says how the host keeps the labels.")]
    public bool SecurityLabel { get; set; }

    [Option("no-host-locks", HelpText = "Locks of the guest's do not hold against programs of the host, nor theirs against the guest: --no-posix-lock and --no-flock.")]
    public bool NoHostLocks { get; set; }

    [Option("no-posix-lock", HelpText = "The same for locks of ranges (fcntl) only.")]
    public bool NoPosixLock { get; set; }

    [Option("no-flock", HelpText = "The same for locks of whole files (flock) only.")]
    public bool NoFlock { get; set; }

    [Option("allow-direct-io", HelpText = "What the guest opens with O_DIRECT goes past the host's page cache, too.")]
    public bool AllowDirectIo { get; set; }

    [Option("no-readdirplus", HelpText = "Directories are read without the attributes of what is in them.")]
    public bool NoReaddirplus { get; set; }

    [Option("announce-submounts", HelpText = "File systems that are mounted below the directory are file systems of their own for the guest; they are so anyway.")]
    public bool AnnounceSubmounts { get; set; }

    [Option("no-announce-submounts", HelpText = "They are parts of the one that is shared; for overlayfs in the guest, which refuses the others.")]
    public bool NoAnnounceSubmounts { get; set; }

    [Option("inode-file-handles", MetaValue = "WHEN", HelpText = "never, prefer, fallback or mandatory, which mean the same here: a file that was found needs no descriptor, and is "
        + "found again by its path. mandatory is refused where the file system has no file handles.")]
    public string? InodeFileHandles { get; set; }

    [Option("preserve-noatime", HelpText = "O_NOATIME of the guest's is kept.")]
    public bool PreserveNoatime { get; set; }

    [Option("killpriv-v2", HelpText = "The host takes set-user-id bits and file capabilities away when a file is written; it does so anyway, but with --dax-window.")]
    public bool KillprivV2 { get; set; }

    [Option("no-killpriv-v2", HelpText = "The guest's kernel does that.")]
    public bool NoKillprivV2 { get; set; }

    [Option("no-privileged-files", HelpText = "The guest makes no set-user-id or set-group-id programs, file capabilities or device nodes, which would be such on this host.")]
    public bool NoPrivilegedFiles { get; set; }

    [Option("thread-pool-size", MetaValue = "N", HelpText = "Threads for requests that would hold up others, at most 256 (default: 4).")]
    public string? ThreadPoolSize { get; set; }

    [Option("queues", MetaValue = "N", HelpText = "Request queues, 1 to 64 (default: 1).")]
    public string? Queues { get; set; }

    [Option("dax-window", MetaValue = "SIZE", HelpText = "The window into which files are mapped for the guest, in whole 2M (default: none).")]
    public string? DaxWindow { get; set; }

    [Option("dax", MetaValue = "WHICH", HelpText = "With --dax-window, which files a guest maps that does not say so itself (mount -o dax): always, all; inode, those that the host has "
        + "marked (chattr +x); never, none (default: always).")]
    public string? Dax { get; set; }

    [Option("translate-uid", MetaValue = "RULE", HelpText = "How numbers of users of the guest and the host go together: map:GUEST:HOST:COUNT, guest:GUEST:HOST:COUNT, "
        + "host:HOST:GUEST:COUNT, squash-guest:GUEST:HOST:COUNT, squash-host:HOST:GUEST:COUNT or forbid-guest:GUEST:COUNT. Repeatable.")]
    public string? TranslateUid { get; set; }

    [Option("translate-gid", MetaValue = "RULE", HelpText = "The same for groups. Repeatable.")]
    public string? TranslateGid { get; set; }

    [Option("uid-map", MetaValue = "MAP", HelpText = ":GUEST:HOST:1:, where HOST is the user that this process acts as: the same as --translate-uid map:GUEST:HOST:1.")]
    public string? UidMap { get; set; }

    [Option("gid-map", MetaValue = "MAP", HelpText = "The same for the group.")]
    public string? GidMap { get; set; }

    [Option("migration-mode", MetaValue = "MODE", HelpText = "find-paths, the way in which a state is saved and loaded here (default: find-paths).")]
    public string? MigrationMode { get; set; }

    [Option("migration-on-error", MetaValue = "HOW", HelpText = "guest-error, the way here: a file that is not found again where a state is loaded is an error for the guest.")]
    public string? MigrationOnError { get; set; }

    [Option("migration-verify-handles", HelpText = "Refused: there are no file handles here.")]
    public bool MigrationVerifyHandles { get; set; }

    [Option("migration-confirm-paths", HelpText = "Refused: a state has the paths by which files were found last.")]
    public bool MigrationConfirmPaths { get; set; }

    [Option("rlimit-nofile", MetaValue = "N", HelpText = "The most descriptors that the process may have, at least 256; 0 for as many as it was started with (default: as many as "
        + "it is allowed).")]
    public string? RlimitNofile { get; set; }

    [Option("modcaps", MetaValue = "LIST", HelpText = "Capabilities that root's process gives up, such as -mknod:-setfcap.")]
    public string? Modcaps { get; set; }

    [Option("seccomp", MetaValue = "kill|none", HelpText = "kill, how system calls are kept away here; none, they are not (default: kill).")]
    public string? Seccomp { get; set; }

    [Option("syslog", HelpText = "What is logged goes to the host's log, by /dev/log.")]
    public bool Syslog { get; set; }

    /// <inheritdoc/>
    // virtiofsd's words for how it is confined: there is one way here.
    public override bool ReadSandbox() => Choice.Parse(
        new OptionValue("--sandbox", null, Sandbox ?? "on"),
        ("on", true), ("off", false), ("true", true), ("false", false), ("namespace", true), ("chroot", true), ("none", false));

    /// <inheritdoc/>
    // What is not allowed fails or ends the process, whichever of the words for that is said.
    public override bool ReadSystemCalls()
    {
        var value = new OptionValue("--seccomp", null, Seccomp ?? "kill");
        if (value.Text is "log" or "trap")
            throw value.Refuse("is not possible: a system call that is not allowed fails or ends the process (kill), or all are allowed (none)");
        return Choice.Parse(value, ("kill", true), ("none", false));
    }

    /// <inheritdoc/>
    public override SystemLog? OpenLog()
    {
        SystemLog? log = Syslog ? SystemLog.TryConnect("vmm") : null;
        _hasLog = log is not null;
        return log;
    }

    /// <inheritdoc/>
    public override Func<ServedDevice> Read()
    {
        FileSystemOptions options = ReadOptions();
        var limit = new OptionValue("--rlimit-nofile", null, RlimitNofile ?? "");
        ulong most = RlimitNofile is null ? 0 : NumberValue.Parse(limit, 0, int.MaxValue);
        if (most is > 0 and < FewestDescriptors)
            throw limit.Refuse($"is too few: the process takes up to {FewestDescriptors} for itself; give more, or 0 for what it was started with");
        if (Syslog && !_hasLog)
            s_log.Warn("--syslog: nobody listens at {Place}: lines go to standard error", SystemLog.Place);
        return Opened("--shared-dir", () =>
        {
            if (RlimitNofile is not null && !ResourceLimit.OpenFiles.TrySet(most > 0 ? most : ResourceLimit.OpenFiles.Inherited ?? FewestDescriptors, raisesMaximum: most > 0))
                throw limit.Refuse($"is more than this process may have: {ResourceLimit.OpenFiles.Maximum}; only root with CAP_SYS_RESOURCE can raise that, to fs.nr_open at most");
            var device = new FileSystemBackend(options);
            CheckHandles(device, options.Directory);
            return new ServedDevice(device, device.Confinement, Prepare: device.PrepareProcess);
        });
    }

    // Files are found by their names all the same. But who says "mandatory" is told where virtiofsd would not start.
    private void CheckHandles(FileSystemBackend device, string directory)
    {
        if (InodeFileHandles != MandatoryHandles || FileHandles.AreOn(directory, out string fileSystem))
            return;
        device.Dispose();
        throw new OptionValue("--inode-file-handles", null, InodeFileHandles).Refuse($"is not possible: {fileSystem}, the file system of {directory}, has no file handles; write prefer");
    }

    private FileSystemOptions ReadOptions()
    {
        foreach ((bool one, string oneName, bool other, string otherName) in new[]
        {
            (PosixAcl, "--posix-acl", NoXattr, "--no-xattr"), (SecurityLabel, "--security-label", NoXattr, "--no-xattr"), (Writeback, "--writeback", ReadOnly, "--readonly"),
            (DaxWindow is not null, "--dax-window", NoPrivilegedFiles, "--no-privileged-files"), (XattrMapText is not null, "--xattrmap", NoXattr, "--no-xattr"),
            (DaxWindow is not null, "--dax-window", KillprivV2, "--killpriv-v2"),
        })
        {
            if (one && other)
                throw new UsageException($"{otherName}: cannot stand beside {oneName}");
        }
        IdMap users = ReadMap(TranslateUidName, TranslateUid, UidMapName, UidMap, FileOwner.User), groups = ReadMap(TranslateGidName, TranslateGid, GidMapName, GidMap, FileOwner.Group);
        if (Modcaps is not null && !ReadSandbox())
            throw new UsageException($"--modcaps: has no effect with --sandbox {Sandbox}, which leaves this process all that it has: leave one of them out");
        bool isTranslated = TranslateUid is not null || TranslateGid is not null || UidMap is not null || GidMap is not null;
        XattrMap? map = XattrMapText is string rules ? ParseXattrMap(new OptionValue("--xattrmap", null, rules)) : null;
        if (PosixAcl && isTranslated)
            throw new UsageException($"--posix-acl: cannot stand beside {TranslateUidName} or {TranslateGidName}: the numbers in ACLs are not translated");
        if (PosixAcl && map is { KeepsAcls: false })
            throw new UsageException("--posix-acl: cannot stand beside an --xattrmap that gives system.posix_acl_* other names: the host would not know them for ACLs");
        CheckFixed();
        return new FileSystemOptions
        {
            Directory = RequirePath("--shared-dir", SharedDir),
            Tag = Tag is string tag ? FsOption.ParseTag(new OptionValue("--tag", null, tag)) : null,
            IsReadOnly = ReadOnly,
            Cache = ParseCache(new OptionValue("--cache", null, Cache ?? "auto")),
            Writeback = Writeback,
            Xattr = !NoXattr,
            XattrMap = map,
            PosixAcl = !NoXattr && !NoPosixAcl && !isTranslated,
            SecurityLabel = SecurityLabel,
            PosixLocks = !NoHostLocks && !NoPosixLock,
            FlockLocks = !NoHostLocks && !NoFlock,
            AllowDirectIo = AllowDirectIo,
            ReadDirectoryPlus = !NoReaddirplus,
            AnnounceSubmounts = !NoAnnounceSubmounts,
            AllowMmap = AllowMmap,
            KeepTime = Timeout is string seconds ? ParseTimeout(new OptionValue("--timeout", null, seconds)) : null,
            GivenUpCapabilities = Modcaps is string list ? ParseGivenUp(new OptionValue("--modcaps", null, list)) : 0,
            PreserveNoAccessTime = PreserveNoatime,
            KillPrivileges = !NoKillprivV2,
            PrivilegedFiles = !NoPrivilegedFiles,
            PoolSize = ThreadPoolSize is string size
                ? (int)Math.Min(NumberValue.Parse(new OptionValue("--thread-pool-size", null, size), 0, int.MaxValue), FileSystemOptions.MaxPoolSize)
                : new FileSystemOptions { Directory = "" }.PoolSize,
            Queues = Queues is string queues ? (int)NumberValue.Parse(new OptionValue("--queues", null, queues), 1, FileSystemOptions.MaxQueues) : 1,
            DaxWindow = DaxWindow is string window ? ParseWindow(new OptionValue("--dax-window", null, window)) : 0,
            Dax = ParseDax(new OptionValue("--dax", null, Dax ?? "always")),
            Users = users,
            Groups = groups,
        };
    }

    // What there is one way for here. A word that says so is taken, another is not.
    private void CheckFixed()
    {
        if (InodeFileHandles is string handles)
        {
            _ = Choice.Parse(new OptionValue("--inode-file-handles", null, handles), ("never", false), ("prefer", true), ("fallback", true), (MandatoryHandles, true));
        }
        if (MigrationMode is string mode)
        {
            var value = new OptionValue("--migration-mode", null, mode);
            if (mode == "file-handles")
                throw value.Refuse("is not possible: there are no file handles here; write find-paths");
            _ = Choice.Parse(value, ("find-paths", true));
        }
        if (MigrationOnError is string reaction)
        {
            var value = new OptionValue("--migration-on-error", null, reaction);
            if (reaction == "abort")
                throw value.Refuse("is not possible: a file is looked for when the guest uses it again; write guest-error");
            _ = Choice.Parse(value, ("guest-error", true));
        }
        if (MigrationVerifyHandles)
            throw new UsageException("--migration-verify-handles: is not possible: there are no file handles here; leave it out");
        if (MigrationConfirmPaths)
            throw new UsageException("--migration-confirm-paths: is not possible: a state has the paths by which files were found last; leave it out");
    }

    private static IdMap ReadMap(string option, string? joined, string mapOption, string? maps, uint own)
    {
        if (joined is not null && maps is not null)
            throw new UsageException($"{mapOption}: cannot stand beside {option}: one of them says how numbers go together");
        return maps is null ? IdMapOption.Parse(option, joined) : new IdMap([.. NamespaceMapOption.Parse(mapOption, option, maps, FileOwner.User == 0 ? null : own)]);
    }

    /// <summary>What the guest keeps, as <paramref name="value"/> says.</summary>
    /// <exception cref="UsageException">It is none of the words.</exception>
    public static FileSystemCache ParseCache(OptionValue value) => Choice.Parse(
        value, ("auto", FileSystemCache.Auto), ("always", FileSystemCache.Always), ("metadata", FileSystemCache.Metadata), ("never", FileSystemCache.Never));

    private FileSystemDax ParseDax(OptionValue value)
    {
        if (Dax is not null && DaxWindow is null)
            throw value.Refuse("has no effect without --dax-window");
        return Choice.Parse(value, ("always", FileSystemDax.Always), ("inode", FileSystemDax.Inode), ("never", FileSystemDax.Never));
    }

    // As virtiofsd: QEMU's takes parts of a second.
    private static TimeSpan ParseTimeout(OptionValue value) =>
        decimal.TryParse(value.Text, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out decimal seconds) && seconds <= uint.MaxValue
            ? TimeSpan.FromTicks((long)(seconds * TimeSpan.TicksPerSecond))
            : throw value.Refuse($"is not a number of seconds from 0 to {uint.MaxValue}, such as 1 or 0.5");

    private static ulong ParseGivenUp(OptionValue value)
    {
        ulong givenUp = CapabilityListOption.ParseGivenUp(value, out IReadOnlyList<string> useless);
        if (useless.Count > 0)
            s_log.Warn("--modcaps: {Capabilities}: this process has no use for that, and gives it up", string.Join(", ", useless));
        return givenUp;
    }

    private static XattrMap ParseXattrMap(OptionValue value)
    {
        try
        {
            return XattrMap.Parse(value.Text);
        }
        catch (FormatException e)
        {
            throw value.Refuse($"cannot be used: {e.Message}");
        }
    }

    private static ulong ParseWindow(OptionValue value)
    {
        const ulong unit = 2 << 20;     // what Linux maps at a time
        ulong size = SizeValue.Parse(value);
        return size % unit == 0 && size <= SharedMemoryWindow.MaxLength ? size : throw value.Refuse("is no size of a window: write a multiple of 2M, up to 64G");
    }
}
