using System.Runtime.InteropServices;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Devices.Backends.FileSystem;

// The structures of linux/fuse.h, protocol 7.39, in the order and with the names of that file as far as C# has such names. All numbers are
// little-endian: guests are of this host's architecture. A test compares sizes and numbers with the header.

/// <summary>struct fuse_in_header: the beginning of every request.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct FuseRequestHeader
{
    public const int WireSize = 40;

    public uint Length;
    public FuseOpcode Opcode;
    public ulong Unique;
    public ulong Node;
    public uint User;
    public uint Group;
    public uint Process;
    public ushort ExtensionWords;   // of 8 bytes each, at the request's end
    public ushort Padding;
}

/// <summary>struct fuse_out_header: the beginning of every reply.</summary>
internal readonly record struct FuseReplyHeader(uint Length, int Error, ulong Unique)
{
    public const int WireSize = 16;
}

/// <summary>struct fuse_attr.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct FuseAttributes
{
    public ulong Inode;
    public ulong Size;
    public ulong Blocks;
    public ulong Accessed;
    public ulong Modified;
    public ulong Changed;
    public uint AccessedNanoseconds;
    public uint ModifiedNanoseconds;
    public uint ChangedNanoseconds;
    public uint Mode;
    public uint LinkCount;
    public uint User;
    public uint Group;
    public uint Device;
    public uint BlockSize;
    public uint Flags;
}

/// <summary>struct fuse_entry_out.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct FuseEntry
{
    public const int WireSize = 128;

    public ulong Node;
    public ulong Generation;
    public ulong EntrySeconds;
    public ulong AttributesSeconds;
    public uint EntryNanoseconds;
    public uint AttributesNanoseconds;
    public FuseAttributes Attributes;
}

/// <summary>struct fuse_attr_out.</summary>
internal struct FuseAttributesReply
{
    public const int WireSize = 104;

    public ulong Seconds;
    public uint Nanoseconds;
    public uint Padding;
    public FuseAttributes Attributes;
}

/// <summary>struct fuse_init_in.</summary>
internal struct FuseInitRequest
{
    public const int ShortSize = 16;    // without FUSE_INIT_EXT

    public uint Major;
    public uint Minor;
    public uint MaxReadAhead;
    public uint Flags;
    public uint Flags2;
}

/// <summary>struct fuse_init_out.</summary>
[StructLayout(LayoutKind.Sequential, Size = WireSize)]
internal struct FuseInitReply
{
    public const int WireSize = 64;

    public uint Major;
    public uint Minor;
    public uint MaxReadAhead;
    public uint Flags;
    public ushort MaxBackground;
    public ushort CongestionThreshold;
    public uint MaxWrite;
    public uint TimeGranularity;
    public ushort MaxPages;
    public ushort MapAlignment;
    public uint Flags2;
}

internal readonly record struct FuseGetAttributes(uint Flags, uint Padding, ulong Handle)
{
    public const uint HasHandle = 1;    // FUSE_GETATTR_FH
}

/// <summary>struct fuse_setattr_in.</summary>
[StructLayout(LayoutKind.Sequential, Size = 88)]
internal struct FuseSetAttributes
{
    // FATTR_*
    public const uint ModeBit = 1, UserBit = 2, GroupBit = 4, SizeBit = 8, AccessedBit = 16, ModifiedBit = 32, HandleBit = 64, AccessedNowBit = 128,
        ModifiedNowBit = 256, KillPrivilegesBit = 2048;

    public uint Valid;
    public uint Padding;
    public ulong Handle;
    public ulong Size;
    public ulong LockOwner;
    public ulong Accessed;
    public ulong Modified;
    public ulong Changed;
    public uint AccessedNanoseconds;
    public uint ModifiedNanoseconds;
    public uint ChangedNanoseconds;
    public uint Mode;
    public uint Unused;
    public uint User;
    public uint Group;
}

internal readonly record struct FuseMakeNode(uint Mode, uint Device, uint Mask, uint Padding);

internal readonly record struct FuseMakeDirectory(uint Mode, uint Mask);

internal readonly record struct FuseRename2(ulong NewDirectory, uint Flags, uint Padding);

internal readonly record struct FuseOpen(uint Flags, uint OpenFlags)
{
    public const uint KillPrivileges = 1;   // FUSE_OPEN_KILL_SUIDGID
}

internal readonly record struct FuseCreate(uint Flags, uint Mode, uint Mask, uint OpenFlags);

/// <summary>struct fuse_open_out.</summary>
internal readonly record struct FuseOpenReply(ulong Handle, uint Flags, uint Padding)
{
    public const int WireSize = 16;
    public const uint DirectIo = 1, KeepCache = 2, CacheDirectory = 8;     // FOPEN_*
}

internal readonly record struct FuseRelease(ulong Handle, uint Flags, uint ReleaseFlags, ulong LockOwner)
{
    public const uint UnlocksFlock = 2;     // FUSE_RELEASE_FLOCK_UNLOCK
}

internal readonly record struct FuseFlush(ulong Handle, uint Unused, uint Padding, ulong LockOwner);

/// <summary>struct fuse_read_in and struct fuse_write_in.</summary>
internal readonly record struct FuseTransfer(ulong Handle, ulong Offset, uint Size, uint TransferFlags, ulong LockOwner, uint Flags, uint Padding)
{
    public const int WireSize = 40;
    public const uint FromCache = 1;        // FUSE_WRITE_CACHE
    public const uint KillsPrivileges = 4;  // FUSE_WRITE_KILL_SUIDGID

    /// <summary>Whether a write goes to the file's end, wherever that is: a program has asked for it (O_APPEND), and it is no page of the guest's cache.</summary>
    public bool Appends => (Flags & FileTree.Append) != 0 && (TransferFlags & FromCache) == 0;
}

/// <summary>struct fuse_kstatfs.</summary>
[StructLayout(LayoutKind.Sequential, Size = WireSize)]
internal struct FuseStatFs
{
    public const int WireSize = 80;

    public ulong Blocks;
    public ulong BlocksFree;
    public ulong BlocksAvailable;
    public ulong Files;
    public ulong FilesFree;
    public uint BlockSize;
    public uint NameLength;
    public uint FragmentSize;
}

/// <summary>struct fuse_write_out.</summary>
internal readonly record struct FuseWriteReply(uint Size, uint Padding)
{
    public const int WireSize = 8;
}

internal readonly record struct FuseAccess(uint Mask, uint Padding);

/// <summary>struct fuse_batch_forget_in, in front of as many <see cref="FuseForgetOne"/>.</summary>
internal readonly record struct FuseForgetBatch(uint Count, uint Padding)
{
    public const int WireSize = 8;
}

internal readonly record struct FuseFsync(ulong Handle, uint Flags, uint Padding)
{
    public const uint DataOnly = 1;         // FUSE_FSYNC_FDATASYNC
}

internal readonly record struct FuseSetXattr(uint Size, uint Flags);

internal readonly record struct FuseSetXattrMore(uint Flags, uint Padding)
{
    public const uint KillsSetGroup = 1;    // FUSE_SETXATTR_ACL_KILL_SGID
}

/// <summary>struct fuse_getxattr_in and fuse_getxattr_out.</summary>
internal readonly record struct FuseXattrSize(uint Size, uint Padding);

/// <summary>struct fuse_lk_in: struct fuse_file_lock in its middle.</summary>
internal readonly record struct FuseLock(ulong Handle, ulong Owner, ulong Start, ulong End, uint Type, uint Process, uint Flags, uint Padding)
{
    public const uint IsFlock = 1;          // FUSE_LK_FLOCK
}

/// <summary>struct fuse_file_lock, the reply.</summary>
internal readonly record struct FuseLockReply(ulong Start, ulong End, uint Type, uint Process)
{
    public const int WireSize = 24;
}

internal readonly record struct FuseIoctl(ulong Handle, uint Flags, uint Command, ulong Argument, uint InSize, uint OutSize);

internal readonly record struct FuseIoctlReply(int Result, uint Flags, uint InVectors, uint OutVectors)
{
    public const int WireSize = 16;
}

internal readonly record struct FuseAllocate(ulong Handle, ulong Offset, ulong Length, uint Mode, uint Padding);

internal readonly record struct FuseSeek(ulong Handle, ulong Offset, uint Whence, uint Padding);

internal readonly record struct FuseCopyRange(ulong Handle, ulong Offset, ulong TargetNode, ulong TargetHandle, ulong TargetOffset, ulong Length, ulong Flags);

internal readonly record struct FuseForgetOne(ulong Node, ulong Lookups)
{
    public const int WireSize = 16;
}

/// <summary>The fixed part of struct fuse_dirent; the name follows, filled up to a multiple of 8.</summary>
internal readonly record struct FuseDirectoryEntry(ulong Inode, ulong Next, uint NameLength, uint Type)
{
    public const int WireSize = 24;
}

/// <summary>struct fuse_setupmapping_in.</summary>
internal readonly record struct FuseSetupMapping(ulong Handle, ulong FileOffset, ulong Length, ulong Flags, ulong WindowOffset)
{
    public const ulong Writable = 1;        // FUSE_SETUPMAPPING_FLAG_WRITE
}

internal readonly record struct FuseRemoveMapping(ulong WindowOffset, ulong Length);

/// <summary>struct fuse_ext_header, at the request's end.</summary>
internal readonly record struct FuseExtension(uint Size, uint Type)
{
    public const int WireSize = 8;
    public const uint MostContexts = 31;    // FUSE_MAX_NR_SECCTX: types up to this are security contexts
    public const uint Groups = 32;          // FUSE_EXT_GROUPS
}

internal readonly record struct FuseStatxRequest(uint AttributeFlags, uint Padding, ulong Handle, uint StatxFlags, uint StatxMask);

/// <summary>A time in struct fuse_statx: struct fuse_sx_time.</summary>
[StructLayout(LayoutKind.Sequential, Size = 16)]
internal readonly record struct FuseStatxTime(long Seconds, uint Nanoseconds);

/// <summary>struct fuse_statx_out with its struct fuse_statx.</summary>
[StructLayout(LayoutKind.Sequential, Size = WireSize)]
internal struct FuseStatxReply
{
    public const int WireSize = 288;

    public ulong Seconds;
    public uint Nanoseconds;
    public uint Flags;
    public ulong Spare0;
    public ulong Spare1;
    public uint Mask;
    public uint BlockSize;
    public ulong Attributes;
    public uint LinkCount;
    public uint User;
    public uint Group;
    public ushort Mode;
    public ushort Spare2;
    public ulong Inode;
    public ulong Size;
    public ulong Blocks;
    public ulong AttributesMask;
    public FuseStatxTime Accessed;
    public FuseStatxTime Born;
    public FuseStatxTime Changed;
    public FuseStatxTime Modified;
    public uint DeviceOfNodeMajor;
    public uint DeviceOfNodeMinor;
    public uint DeviceMajor;
    public uint DeviceMinor;
}
