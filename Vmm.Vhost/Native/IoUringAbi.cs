using System.Runtime.InteropServices;

namespace Vmm.Vhost.Native;

/// <summary>What <c>linux/io_uring.h</c> declares, as far as <see cref="IoUring"/> needs it; a test compares it with the header.</summary>
internal static class IoUringAbi
{
    public const int SetupCall = 425;       // asm/unistd_64.h; the same on arm64
    public const int EnterCall = 426;
    public const int RegisterCall = 427;

    public const uint SetupCqSize = 1 << 3;
    public const uint SetupDisabled = 1 << 6;
    public const uint SetupSubmitAll = 1 << 7;
    public const uint SetupCoopTaskrun = 1 << 8;
    public const uint SetupTaskrunFlag = 1 << 9;

    public const uint FeatureSingleMmap = 1 << 0;
    public const uint FeatureNoDrop = 1 << 1;

    public const ulong OffsetSqRing = 0;
    public const ulong OffsetSqes = 0x10000000;

    public const uint EnterGetEvents = 1 << 0;

    public const uint SqCqOverflow = 1 << 1;
    public const uint SqTaskrun = 1 << 2;
    public const uint CqEventFdDisabled = 1 << 0;

    public const uint RegisterFiles = 2;
    public const uint RegisterEventFd = 4;
    public const uint RegisterRestrictions = 11;
    public const uint RegisterEnableRings = 12;

    public const ushort RestrictionRegisterOp = 0;
    public const ushort RestrictionSqeOp = 1;
    public const ushort RestrictionSqeFlagsAllowed = 2;
    public const ushort RestrictionSqeFlagsRequired = 3;

    public const byte SqeFixedFile = 1 << 0;
    public const uint FsyncDataSync = 1 << 0;
}

/// <summary>What an entry of the submission queue asks for (<c>enum io_uring_op</c>); every ring may do these, and nothing else.</summary>
internal enum IoUringOperation : byte
{
    ReadV = 1,
    WriteV = 2,
    Fsync = 3,
    Fallocate = 17,
    Read = 22,
    Write = 23,
}

/// <summary><c>struct io_uring_sqe</c>, 64 bytes, with the members of its unions that are used here.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct IoUringSqe
{
    public IoUringOperation Opcode;
    public byte Flags;
    public ushort Ioprio;
    public int Fd;
    public ulong Off;
    public ulong Addr;
    public uint Len;
    public uint RwFlags;
    public ulong UserData;
    public ushort BufIndex;
    public ushort Personality;
    public int SpliceFdIn;
    public ulong Addr3;
    public ulong Pad2;
}

/// <summary><c>struct io_uring_restriction</c>, 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct IoUringRestriction(ushort opcode, byte value)
{
    public ushort Opcode = opcode;
    public byte SqeOp = value;
    public byte Resv;
    public uint Resv2;
    public ulong Resv3;
}

/// <summary><c>struct io_uring_cqe</c>, 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct IoUringCqe
{
    public ulong UserData;
    public int Res;
    public uint Flags;
}

/// <summary><c>struct io_sqring_offsets</c>, 40 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct IoSqringOffsets
{
    public uint Head;
    public uint Tail;
    public uint RingMask;
    public uint RingEntries;
    public uint Flags;
    public uint Dropped;
    public uint Array;
    public uint Resv1;
    public ulong Resv2;
}

/// <summary><c>struct io_cqring_offsets</c>, 40 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct IoCqringOffsets
{
    public uint Head;
    public uint Tail;
    public uint RingMask;
    public uint RingEntries;
    public uint Overflow;
    public uint Cqes;
    public uint Flags;
    public uint Resv1;
    public ulong Resv2;
}

/// <summary><c>struct io_uring_params</c>, 120 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct IoUringParams
{
    public uint SqEntries;
    public uint CqEntries;
    public uint Flags;
    public uint SqThreadCpu;
    public uint SqThreadIdle;
    public uint Features;
    public uint WqFd;
    public uint Resv0;
    public uint Resv1;
    public uint Resv2;
    public IoSqringOffsets SqOff;
    public IoCqringOffsets CqOff;
}
