using Vmm.Vhost.Native.Confinement;

namespace Vmm.Devices.Backends.FileSystem;

/// <summary>A directory that is shared, and how.</summary>
public sealed record FileSystemOptions
{
    /// <summary>The largest <see cref="Queues"/>.</summary>
    public const int MaxQueues = 64;

    /// <summary>The largest <see cref="PoolSize"/>.</summary>
    public const int MaxPoolSize = 256;

    /// <summary>The directory.</summary>
    public required string Directory { get; init; }

    /// <summary>By what name the guest mounts it, up to <see cref="FsConfig.MaxTagBytes"/>; null where the front-end says.</summary>
    public string? Tag { get; init; }

    /// <summary>Whether the guest can change nothing.</summary>
    public bool IsReadOnly { get; init; }

    /// <summary>What the guest keeps in its caches.</summary>
    public FileSystemCache Cache { get; init; }

    /// <summary>Whether the guest collects writes in its page cache, and says later what it has written. Not where the host writes, too.</summary>
    public bool Writeback { get; init; }

    /// <summary>Whether there are extended attributes.</summary>
    public bool Xattr { get; init; } = true;

    /// <summary>Which names extended attributes have on the host; null for <see cref="XattrMap.Default"/>.</summary>
    public XattrMap? XattrMap { get; init; }

    /// <summary>Whether the guest's kernel checks and keeps POSIX ACLs; with <see cref="Xattr"/>, and where <see cref="XattrMap"/> leaves their names alone
    /// (<see cref="XattrMap.KeepsAcls"/>).</summary>
    public bool PosixAcl { get; init; } = true;

    /// <summary>Whether the guest labels files as it makes them (SELinux, Smack); with <see cref="Xattr"/>.</summary>
    public bool SecurityLabel { get; init; }

    /// <summary>Whether locks of ranges (fcntl(2)) that the guest takes exclude other programs of the host, and theirs the guest. If not, or with
    /// <see cref="IsReadOnly"/>, they hold in the guest only.</summary>
    public bool PosixLocks { get; init; } = true;

    /// <summary>The same for locks of whole files (flock(2)).</summary>
    public bool FlockLocks { get; init; } = true;

    /// <summary>Whether a guest that opens a file with O_DIRECT goes past the host's page cache, too.</summary>
    public bool AllowDirectIo { get; init; }

    /// <summary>Whether programs of the guest's can map a file shared (MAP_SHARED) where the guest keeps no data: with <see cref="FileSystemCache.Metadata"/> and
    /// <see cref="FileSystemCache.Never"/>. What they map so is in the guest's cache. Not where the host writes, too. It needs Linux 6.6 in the guest.</summary>
    public bool AllowMmap { get; init; }

    /// <summary>For how long the guest keeps names and attributes, 0 to 4294967295 seconds; parts of a second count. Null, the default, for what
    /// <see cref="Cache"/> says: 1 s, a day, or 0.</summary>
    public TimeSpan? KeepTime { get; init; }

    /// <summary>Whether directories are read together with the attributes of what is in them, where the guest's kernel finds that worth it.</summary>
    public bool ReadDirectoryPlus { get; init; } = true;

    /// <summary>Whether the guest sees what is mounted below the directory, and btrfs subvolumes there, as file systems of their own. If not, two files of the share may have the
    /// same number, and overlayfs in the guest can have such a directory among its layers.</summary>
    public bool AnnounceSubmounts { get; init; } = true;

    /// <summary>Whether O_NOATIME of the guest's is kept.</summary>
    public bool PreserveNoAccessTime { get; init; }

    /// <summary>Whether the host takes set-user-id bits and file capabilities away when a file is written (FUSE_HANDLE_KILLPRIV_V2). If not, the
    /// guest's kernel does, at the price of a request before writes. It does so with a <see cref="DaxWindow"/>: what is written there is not seen here.</summary>
    public bool KillPrivileges { get; init; } = true;

    /// <summary>Whether the guest can make programs that run with the rights of their owner (set-user-id, set-group-id, file capabilities), and device nodes. The
    /// users of the host can run these programs, too. So root in the guest could give them the rights of the user of this process. If this is off, the bits are left out, a file that the
    /// guest opens for writing loses them, and making capabilities or device nodes is EPERM.</summary>
    public bool PrivilegedFiles { get; init; } = true;

    /// <summary>Capabilities that the process gives up though serving needs them, as bits of <see cref="ThreadPrivileges"/>: what they are needed for fails then.</summary>
    public ulong GivenUpCapabilities { get; init; }

    /// <summary>Threads for requests that would hold up others, 0 (none) to <see cref="MaxPoolSize"/>; 4 by default.</summary>
    public int PoolSize { get; init; } = 4;

    /// <summary>Request queues, 1 to <see cref="MaxQueues"/>; there is one more for what must not wait.</summary>
    public int Queues { get; init; } = 1;

    /// <summary>Bytes of the window into which files are mapped for the guest (DAX): a multiple of 2 MiB, which Linux maps at a time, up to 64 GiB.
    /// 0, the default, for none.</summary>
    public ulong DaxWindow { get; init; }

    /// <summary>Which files are mapped, with a <see cref="DaxWindow"/>, where the guest leaves that to this side: with the mount option dax=inode, its default.</summary>
    public FileSystemDax Dax { get; init; } = FileSystemDax.Always;

    /// <summary>How user ids of the guest and of the host go together.</summary>
    public IdMap Users { get; init; } = IdMap.Same;

    /// <summary>How group ids of the guest and of the host go together.</summary>
    public IdMap Groups { get; init; } = IdMap.Same;
}

/// <summary>What a guest keeps in its caches.</summary>
public enum FileSystemCache
{
    /// <summary>Names and attributes for a second; data until the file is opened again or found changed.</summary>
    Auto,

    /// <summary>Everything, for as long as the guest likes: nobody else changes the directory.</summary>
    Always,

    /// <summary>Names and attributes, for as long as the guest likes; no data.</summary>
    Metadata,

    /// <summary>Nothing.</summary>
    Never,
}

/// <summary>Which regular files a guest is told to map (FUSE_ATTR_DAX).</summary>
public enum FileSystemDax
{
    /// <summary>All of them.</summary>
    Always,

    /// <summary>Those that the host has marked so (chattr +x, FS_DAX_FL) when the guest hears of them.</summary>
    Inode,

    /// <summary>None.</summary>
    Never,
}
