using System.Runtime.InteropServices;

namespace Vmm.Vhost.Native.FileSystem;

/// <summary>What statx(2) says of a file: struct statx of linux/stat.h, 256 bytes.</summary>
[StructLayout(LayoutKind.Sequential, Size = WireSize)]
public struct FileStatus
{
    /// <summary>Bytes of the structure.</summary>
    public const int WireSize = 256;

    /// <summary>The bits of <see cref="Mode"/> that say what kind of file it is (S_IFMT of linux/stat.h), and their values.</summary>
    public const uint TypeMask = 0xF000, RegularFile = 0x8000, Directory = 0x4000, SymbolicLink = 0xA000;

    /// <summary>STATX_BASIC_STATS, STATX_BTIME and STATX_MNT_ID: what is asked for.</summary>
    internal const uint Wanted = 0x7FF | 0x800 | 0x1000;

#pragma warning disable CS1591 // the names are the kernel's: statx(2) documents them
    public uint Mask;
    public uint BlockSize;
    public ulong Attributes;
    public uint LinkCount;
    public uint UserId;
    public uint GroupId;
    public ushort Mode;
    private readonly ushort _spare;
    public ulong Inode;
    public ulong Size;
    public ulong Blocks;
    public ulong AttributesMask;
    public FileTime Accessed;
    public FileTime Born;
    public FileTime Changed;
    public FileTime Modified;
    public uint DeviceOfNodeMajor;
    public uint DeviceOfNodeMinor;
    public uint DeviceMajor;
    public uint DeviceMinor;
    public ulong MountId;
#pragma warning restore CS1591

    /// <summary>What kind of file it is.</summary>
    public readonly uint Type => Mode & TypeMask;

    /// <summary>Whether it is a directory.</summary>
    public readonly bool IsDirectory => Type == Directory;

    /// <summary>Whether it is a regular file.</summary>
    public readonly bool IsRegular => Type == RegularFile;

    /// <summary>Whether both are of the same file.</summary>
    public readonly bool IsSameFile(in FileStatus other) =>
        (Inode, DeviceMajor, DeviceMinor) == (other.Inode, other.DeviceMajor, other.DeviceMinor);
}

/// <summary>A point in time: struct statx_timestamp, 16 bytes.</summary>
/// <param name="Seconds">Since 1970.</param>
/// <param name="Nanoseconds">0 to 999,999,999.</param>
[StructLayout(LayoutKind.Sequential, Size = 16)]
public readonly record struct FileTime(long Seconds, uint Nanoseconds);
