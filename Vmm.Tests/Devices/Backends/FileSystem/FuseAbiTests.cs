using System.Runtime.CompilerServices;
using System.Text;
using NUnit.Framework;
using Vmm.Devices.Backends.FileSystem;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Tests.Devices.Backends.FileSystem;

/// <summary>Compares structures and numbers with the kernel's headers; those that the headers here do not have yet are left out.</summary>
public class FuseAbiTests
{
    private static readonly (string Name, int Size)[] s_structures =
    [
        ("fuse_in_header", Unsafe.SizeOf<FuseRequestHeader>()), ("fuse_out_header", Unsafe.SizeOf<FuseReplyHeader>()), ("fuse_attr", Unsafe.SizeOf<FuseAttributes>()),
        ("fuse_entry_out", Unsafe.SizeOf<FuseEntry>()), ("fuse_attr_out", Unsafe.SizeOf<FuseAttributesReply>()), ("fuse_init_out", Unsafe.SizeOf<FuseInitReply>()),
        ("fuse_getattr_in", Unsafe.SizeOf<FuseGetAttributes>()), ("fuse_setattr_in", Unsafe.SizeOf<FuseSetAttributes>()), ("fuse_mknod_in", Unsafe.SizeOf<FuseMakeNode>()),
        ("fuse_mkdir_in", Unsafe.SizeOf<FuseMakeDirectory>()), ("fuse_rename2_in", Unsafe.SizeOf<FuseRename2>()), ("fuse_open_in", Unsafe.SizeOf<FuseOpen>()),
        ("fuse_create_in", Unsafe.SizeOf<FuseCreate>()), ("fuse_open_out", Unsafe.SizeOf<FuseOpenReply>()), ("fuse_release_in", Unsafe.SizeOf<FuseRelease>()),
        ("fuse_flush_in", Unsafe.SizeOf<FuseFlush>()), ("fuse_read_in", Unsafe.SizeOf<FuseTransfer>()), ("fuse_write_in", Unsafe.SizeOf<FuseTransfer>()),
        ("fuse_write_out", Unsafe.SizeOf<FuseWriteReply>()), ("fuse_access_in", Unsafe.SizeOf<FuseAccess>()), ("fuse_batch_forget_in", Unsafe.SizeOf<FuseForgetBatch>()),
        ("fuse_kstatfs", Unsafe.SizeOf<FuseStatFs>()), ("fuse_fsync_in", Unsafe.SizeOf<FuseFsync>()), ("fuse_getxattr_in", Unsafe.SizeOf<FuseXattrSize>()),
        ("fuse_setxattr_in", Unsafe.SizeOf<FuseSetXattr>() + Unsafe.SizeOf<FuseSetXattrMore>()), ("fuse_lk_in", Unsafe.SizeOf<FuseLock>()),
        ("fuse_lk_out", Unsafe.SizeOf<FuseLockReply>()), ("fuse_ioctl_in", Unsafe.SizeOf<FuseIoctl>()), ("fuse_ioctl_out", Unsafe.SizeOf<FuseIoctlReply>()),
        ("fuse_fallocate_in", Unsafe.SizeOf<FuseAllocate>()), ("fuse_lseek_in", Unsafe.SizeOf<FuseSeek>()), ("fuse_copy_file_range_in", Unsafe.SizeOf<FuseCopyRange>()),
        ("fuse_forget_one", Unsafe.SizeOf<FuseForgetOne>()), ("fuse_dirent", Unsafe.SizeOf<FuseDirectoryEntry>()), ("fuse_setupmapping_in", Unsafe.SizeOf<FuseSetupMapping>()),
        ("fuse_removemapping_one", Unsafe.SizeOf<FuseRemoveMapping>()), ("statx", Unsafe.SizeOf<FileStatus>()), ("statfs", Unsafe.SizeOf<FileSystemStatus>()),
        ("flock", Unsafe.SizeOf<RangeLockRequest>()),
    ];

    private static readonly (string Name, uint Value)[] s_numbers =
    [
        ("FUSE_LOOKUP", (uint)FuseOpcode.Lookup), ("FUSE_SETATTR", (uint)FuseOpcode.SetAttributes), ("FUSE_SYMLINK", (uint)FuseOpcode.SymbolicLink),
        ("FUSE_RENAME", (uint)FuseOpcode.Rename), ("FUSE_STATFS", (uint)FuseOpcode.StatFs), ("FUSE_FSYNC", (uint)FuseOpcode.Fsync),
        ("FUSE_SETXATTR", (uint)FuseOpcode.SetXattr), ("FUSE_INIT", (uint)FuseOpcode.Init), ("FUSE_FSYNCDIR", (uint)FuseOpcode.FsyncDirectory),
        ("FUSE_SETLKW", (uint)FuseOpcode.SetLockWait), ("FUSE_CREATE", (uint)FuseOpcode.Create), ("FUSE_INTERRUPT", (uint)FuseOpcode.Interrupt),
        ("FUSE_DESTROY", (uint)FuseOpcode.Destroy), ("FUSE_IOCTL", (uint)FuseOpcode.Ioctl), ("FUSE_BATCH_FORGET", (uint)FuseOpcode.BatchForget),
        ("FUSE_READDIRPLUS", (uint)FuseOpcode.ReadDirectoryPlus), ("FUSE_RENAME2", (uint)FuseOpcode.Rename2), ("FUSE_COPY_FILE_RANGE", (uint)FuseOpcode.CopyFileRange),
        ("FUSE_SETUPMAPPING", (uint)FuseOpcode.SetupMapping), ("FUSE_REMOVEMAPPING", (uint)FuseOpcode.RemoveMapping), ("FUSE_SYNCFS", (uint)FuseOpcode.SyncFs),
        ("FUSE_TMPFILE", (uint)FuseOpcode.TemporaryFile), ("FATTR_KILL_SUIDGID", FuseSetAttributes.KillPrivilegesBit), ("FATTR_MTIME_NOW", FuseSetAttributes.ModifiedNowBit),
        ("FUSE_WRITE_KILL_SUIDGID", FuseTransfer.KillsPrivileges), ("FUSE_OPEN_KILL_SUIDGID", FuseOpen.KillPrivileges), ("FUSE_LK_FLOCK", FuseLock.IsFlock),
        ("FUSE_RELEASE_FLOCK_UNLOCK", FuseRelease.UnlocksFlock), ("FOPEN_CACHE_DIR", FuseOpenReply.CacheDirectory), ("FOPEN_KEEP_CACHE", FuseOpenReply.KeepCache),
        ("STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID", FileStatus.Wanted), ("O_PATH", FileTree.PathOnly), ("O_TMPFILE", FileTree.Temporary),
        ("O_NOFOLLOW", FileTree.NoFollow), ("O_NOATIME", FileTree.NoAccessTime), ("O_SYNC", FileTree.Synchronous), ("O_DIRECT", FileTree.Direct),
        ("FS_IOC_GETFLAGS", OpenFileIo.GetFlagsRequest.Number), ("FS_IOC_SETFLAGS", OpenFileIo.SetFlagsRequest.Number),
        ("FS_IOC_FSGETXATTR", OpenFileIo.GetAttributesRequest.Number), ("FALLOC_FL_UNSHARE_RANGE", 0x40), ("UTIME_OMIT", FileTree.TimeOmit),
    ];

    private static readonly (string Name, FuseFlags Flag)[] s_flags =
    [
        ("FUSE_ASYNC_READ", FuseFlags.AsyncRead), ("FUSE_POSIX_LOCKS", FuseFlags.PosixLocks), ("FUSE_ATOMIC_O_TRUNC", FuseFlags.AtomicTruncate),
        ("FUSE_BIG_WRITES", FuseFlags.BigWrites), ("FUSE_DONT_MASK", FuseFlags.DontMask), ("FUSE_FLOCK_LOCKS", FuseFlags.FlockLocks),
        ("FUSE_AUTO_INVAL_DATA", FuseFlags.AutoInvalidateData), ("FUSE_DO_READDIRPLUS", FuseFlags.ReadDirectoryPlus),
        ("FUSE_READDIRPLUS_AUTO", FuseFlags.ReadDirectoryPlusAuto), ("FUSE_ASYNC_DIO", FuseFlags.AsyncDirectIo), ("FUSE_WRITEBACK_CACHE", FuseFlags.WritebackCache),
        ("FUSE_PARALLEL_DIROPS", FuseFlags.ParallelDirectoryOperations), ("FUSE_POSIX_ACL", FuseFlags.PosixAcl), ("FUSE_MAX_PAGES", FuseFlags.MaxPages),
        ("FUSE_MAP_ALIGNMENT", FuseFlags.MapAlignment), ("FUSE_SUBMOUNTS", FuseFlags.Submounts), ("FUSE_HANDLE_KILLPRIV_V2", FuseFlags.HandleKillPrivileges2),
        ("FUSE_SETXATTR_EXT", FuseFlags.SetXattrExtension), ("FUSE_INIT_EXT", FuseFlags.InitExtension), ("FUSE_SECURITY_CTX", FuseFlags.SecurityContext),
        ("FUSE_HAS_INODE_DAX", FuseFlags.InodeDax),
    ];

    [Test]
    public void Declarations_AgainstKernelHeaders_AreTheSame()
    {
        var c = new StringBuilder(
            "#define _GNU_SOURCE\n#include <stddef.h>\n#include <fcntl.h>\n#include <sys/stat.h>\n#include <sys/vfs.h>\n#include <linux/fuse.h>\n#include <linux/fs.h>\n"
            + "#include <linux/falloc.h>\n");
        foreach ((string name, int size) in s_structures)
            c.Append($"_Static_assert(sizeof(struct {name}) == {size}, \"{name}\");\n");
        foreach ((string name, uint value) in s_numbers)
            c.Append($"_Static_assert(({name}) == {value}u, \"{name}\");\n");
        foreach ((string name, FuseFlags flag) in s_flags)
            c.Append($"_Static_assert(({name}) == {(ulong)flag}ull, \"{name}\");\n");
        c.Append($"_Static_assert(offsetof(struct fuse_attr, mode) == {60}, \"mode\");\n_Static_assert(offsetof(struct statx, stx_mnt_id) == {144}, \"stx_mnt_id\");\n");
        CCompiler.Check(c.ToString());
    }
}
