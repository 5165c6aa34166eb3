using System.Text;
using CommandLine;
using Vmm.Devices.Backends.FileSystem;
using Vmm.Devices.Virtio;
using Vmm.Vhost.Native;

namespace Vmm.Cli.Backend;

/// <summary>The options of <c>vmm backend fs</c>; those that the virtiofsd in Rust has, too, have its names.</summary>
[Verb("fs", HelpText = "A directory.")]
internal sealed class FsBackendOptions : BackendOptions
{
    /// <summary>The options that may be given more than once.</summary>
    public const string TranslateUidName = "--translate-uid", TranslateGidName = "--translate-gid";

    [Option("shared-dir", MetaValue = "DIR", HelpText = "The directory.")]
    public string? SharedDir { get; set; }

    [Option("tag", MetaValue = "NAME", HelpText = "By what name the guest mounts it (default: the front-end says).")]
    public string? Tag { get; set; }

    [Option("readonly", HelpText = "The guest can change nothing.")]
    public bool ReadOnly { get; set; }

    [Option("cache", MetaValue = "WHAT", HelpText = "What the guest keeps in its caches: auto, names and attributes for a second, data until the file is opened "
        + "again; always, everything; metadata, names and attributes only; never, nothing (default: auto).")]
    public string? Cache { get; set; }

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

    [Option("no-host-locks", HelpText = "Locks of the guest's do not hold against programs of the host, nor theirs against the guest.")]
    public bool NoHostLocks { get; set; }

    [Option("allow-direct-io", HelpText = "What the guest opens with O_DIRECT goes past the host's page cache, too.")]
    public bool AllowDirectIo { get; set; }

    [Option("no-readdirplus", HelpText = "Directories are read without the attributes of what is in them.")]
    public bool NoReaddirplus { get; set; }

    [Option("announce-submounts", HelpText = "File systems that are mounted below the directory are file systems of their own for the guest.")]
    public bool AnnounceSubmounts { get; set; }

    [Option("inode-file-handles", MetaValue = "WHEN", HelpText = "never or prefer, which mean the same here: a file that was found needs no descriptor, and is "
        + "found again by its path.")]
    public string? InodeFileHandles { get; set; }

    [Option("preserve-noatime", HelpText = "O_NOATIME of the guest's is kept.")]
    public bool PreserveNoatime { get; set; }

    [Option("killpriv-v2", HelpText = "The host takes set-user-id bits and file capabilities away when a file is written; it does so anyway.")]
    public bool KillprivV2 { get; set; }

    [Option("no-killpriv-v2", HelpText = "The guest's kernel does that.")]
    public bool NoKillprivV2 { get; set; }

    [Option("no-privileged-files", HelpText = "The guest makes no set-user-id or set-group-id programs, file capabilities or device nodes, which would be such on this host.")]
    public bool NoPrivilegedFiles { get; set; }

    [Option("thread-pool-size", MetaValue = "N", HelpText = "Threads for requests that would hold up others, 0 to 256 (default: 4).")]
    public string? ThreadPoolSize { get; set; }

    [Option("queues", MetaValue = "N", HelpText = "Request queues, 1 to 64 (default: 1).")]
    public string? Queues { get; set; }

    [Option("dax-window", MetaValue = "SIZE", HelpText = "The window into which files are mapped for the guest, in whole 2M (default: none).")]
    public string? DaxWindow { get; set; }

    [Option("translate-uid", MetaValue = "RULE", HelpText = "How numbers of users of the guest and the host go together: map:GUEST:HOST:COUNT, guest:GUEST:HOST:COUNT, "
        + "host:HOST:GUEST:COUNT, squash-guest:GUEST:HOST:COUNT, squash-host:HOST:GUEST:COUNT or forbid-guest:GUEST:COUNT. Repeatable.")]
    public string? TranslateUid { get; set; }

    [Option("translate-gid", MetaValue = "RULE", HelpText = "The same for groups. Repeatable.")]
    public string? TranslateGid { get; set; }

    [Option("migration-mode", MetaValue = "MODE", HelpText = "find-paths, the way in which a state is saved and loaded here (default: find-paths).")]
    public string? MigrationMode { get; set; }

    [Option("rlimit-nofile", MetaValue = "N", HelpText = "The most descriptors that the process may have (default: as many as it is allowed).")]
    public string? RlimitNofile { get; set; }

    /// <inheritdoc/>
    // virtiofsd's words for how it is confined: there is one way here.
    public override bool ReadSandbox() => Choice.Parse(
        new OptionValue("--sandbox", null, Sandbox ?? "on"),
        ("on", true), ("off", false), ("true", true), ("false", false), ("namespace", true), ("chroot", true), ("none", false));

    /// <inheritdoc/>
    public override Func<ServedDevice> Read()
    {
        FileSystemOptions options = ReadOptions();
        ulong? limit = RlimitNofile is string text ? NumberValue.Parse(new OptionValue("--rlimit-nofile", null, text), 256, int.MaxValue) : null;
        return Opened("--shared-dir", () =>
        {
            if (limit is ulong most && !ResourceLimit.OpenFiles.TrySet(most))
                throw new UsageException($"--rlimit-nofile: '{most}' is more than this process may have: {ResourceLimit.OpenFiles.Maximum}");
            var device = new FileSystemBackend(options);
            return new ServedDevice(device, device.Confinement, Prepare: device.PrepareProcess);
        });
    }

    private FileSystemOptions ReadOptions()
    {
        foreach ((bool one, string oneName, bool other, string otherName) in new[]
        {
            (Xattr, "--xattr", NoXattr, "--no-xattr"), (PosixAcl, "--posix-acl", NoPosixAcl, "--no-posix-acl"), (PosixAcl, "--posix-acl", NoXattr, "--no-xattr"),
            (SecurityLabel, "--security-label", NoXattr, "--no-xattr"),
            (KillprivV2, "--killpriv-v2", NoKillprivV2, "--no-killpriv-v2"), (Writeback, "--writeback", ReadOnly, "--readonly"),
            (DaxWindow is not null, "--dax-window", NoPrivilegedFiles, "--no-privileged-files"),
        })
        {
            if (one && other)
                throw new UsageException($"{otherName}: cannot stand beside {oneName}");
        }
        bool isTranslated = TranslateUid is not null || TranslateGid is not null;
        if (PosixAcl && isTranslated)
            throw new UsageException("--posix-acl: cannot stand beside --translate-uid or --translate-gid: the numbers in ACLs are not translated");
        if (InodeFileHandles is string handles)
            _ = Choice.Parse(new OptionValue("--inode-file-handles", null, handles), ("never", false), ("prefer", true));
        if (MigrationMode is string mode)
            _ = Choice.Parse(new OptionValue("--migration-mode", null, mode), ("find-paths", true));
        return new FileSystemOptions
        {
            Directory = RequirePath("--shared-dir", SharedDir),
            Tag = Tag is string tag ? ParseTag(new OptionValue("--tag", null, tag)) : null,
            IsReadOnly = ReadOnly,
            Cache = ParseCache(new OptionValue("--cache", null, Cache ?? "auto")),
            Writeback = Writeback,
            Xattr = !NoXattr,
            XattrMap = XattrMapText is string map ? ParseXattrMap(new OptionValue("--xattrmap", null, map)) : null,
            PosixAcl = !NoXattr && !NoPosixAcl && !isTranslated,
            SecurityLabel = SecurityLabel,
            HostLocks = !NoHostLocks,
            AllowDirectIo = AllowDirectIo,
            ReadDirectoryPlus = !NoReaddirplus,
            AnnounceSubmounts = AnnounceSubmounts,
            PreserveNoAccessTime = PreserveNoatime,
            KillPrivileges = !NoKillprivV2,
            PrivilegedFiles = !NoPrivilegedFiles,
            PoolSize = ThreadPoolSize is string size
                ? (int)NumberValue.Parse(new OptionValue("--thread-pool-size", null, size), 0, FileSystemOptions.MaxPoolSize)
                : new FileSystemOptions { Directory = "" }.PoolSize,
            Queues = Queues is string queues ? (int)NumberValue.Parse(new OptionValue("--queues", null, queues), 1, FileSystemOptions.MaxQueues) : 1,
            DaxWindow = DaxWindow is string window ? ParseWindow(new OptionValue("--dax-window", null, window)) : 0,
            Users = IdMapOption.Parse(TranslateUidName, TranslateUid),
            Groups = IdMapOption.Parse(TranslateGidName, TranslateGid),
        };
    }

    /// <summary>What the guest keeps, as <paramref name="value"/> says.</summary>
    /// <exception cref="UsageException">It is none of the words.</exception>
    public static FileSystemCache ParseCache(OptionValue value) => Choice.Parse(
        value, ("auto", FileSystemCache.Auto), ("always", FileSystemCache.Always), ("metadata", FileSystemCache.Metadata), ("never", FileSystemCache.Never));

    private static string ParseTag(OptionValue value) => value.Text.Length == 0 ? throw value.Refuse("is no name")
        : Encoding.UTF8.GetByteCount(value.Text) <= FileSystemOptions.MaxTagBytes ? value.Text
        : throw value.Refuse($"is too long: a tag has at most {FileSystemOptions.MaxTagBytes} bytes");

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
        return size % unit == 0 && size <= SharedMemoryWindow.MaxLength ? size : throw value.Refuse("is not a multiple of 2M, or more than 64G");
    }
}
