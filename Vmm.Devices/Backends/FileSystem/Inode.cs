using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Devices.Backends.FileSystem;

/// <summary>What makes a file the same file: where it is, and when it was made, because a number is used again once its file is gone.</summary>
internal readonly record struct InodeIdentity(ulong Device, ulong Number, ulong Mount)
{
    public static InodeIdentity Of(in FileStatus status) =>
        new((ulong)status.DeviceMajor << 32 | status.DeviceMinor, status.Inode, status.MountId);
}

/// <summary>A file that the guest knows. Where it was seen last is kept as a name in a directory; a descriptor (O_PATH) is open only once it was needed, and may be
/// closed again as long as the name leads to the file. All fields are the <see cref="InodeTable"/>'s.</summary>
internal sealed class Inode(ulong id, InodeIdentity identity, FileTime born, uint type)
{
    /// <summary>By what number the guest knows it.</summary>
    public ulong Id { get; } = id;

    public InodeIdentity Identity { get; set; } = identity;

    /// <summary>When it was made; all zero where the file system does not say.</summary>
    public FileTime Born { get; set; } = born;

    /// <summary>What kind of file it is (<see cref="FileStatus.TypeMask"/>): the same for all its life.</summary>
    public uint Type { get; } = type;

    public bool IsDirectory => Type == FileStatus.Directory;

    public bool IsRegular => Type == FileStatus.RegularFile;

    /// <summary>How often the guest was told of it, less how often it has forgotten it.</summary>
    public ulong Lookups;

    /// <summary>For how many files it is the <see cref="Parent"/> or the <see cref="OtherParent"/>, and one more if it is the root of a file system below the shared directory. It is kept for
    /// them when the guest has forgotten it.</summary>
    public int Uses;

    /// <summary>The directory in which it was seen last; null for the root, for a file that never had a name, and for one that neither the guest nor another file needs any more.</summary>
    public Inode? Parent;

    /// <summary>Its name there, with a null byte at the end.</summary>
    public byte[] Name = [];

    /// <summary>The directory of another name of the file (a hard link), by which the guest saw it before; null where none is known. It may lead elsewhere by now.</summary>
    public Inode? OtherParent;

    /// <summary>That name, with a null byte at the end.</summary>
    public byte[] OtherName = [];

    /// <summary>Of a directory: the files that were seen last in it and have another name besides; null for none.</summary>
    public HashSet<Inode>? LinkedFiles;

    /// <summary>Open by O_PATH; null as long as nobody needs it.</summary>
    public FileDescriptor? Path;

    /// <summary>Whether it was seen not to be the kernel's own; true for good.</summary>
    public volatile bool IsOfStorage;

    /// <summary>Whether the host has marked it to be mapped by the guest: 1 or 0; -1 as long as nobody has asked.</summary>
    public volatile int DaxMark = -1;

    /// <summary>Where it is in the <see cref="DescriptorCache"/>; -1 if it is not.</summary>
    public int CacheIndex = -1;

    /// <summary>Whether <see cref="Path"/> was used since the table looked for one to close.</summary>
    public bool WasUsed;

    /// <summary>Whether no name leads to it any more, as far as is known here: <see cref="Path"/> stays open.</summary>
    public bool IsPinned;

    /// <summary>Where it is in the <see cref="SessionTable"/>; -1 if it is not.</summary>
    public int Slot = -1;

    /// <summary>Openings of the file by the guest: each of them leads to it, too.</summary>
    public OpenFile? FirstOpen;

    /// <summary>The guest's locks of ranges; null where there never was one.</summary>
    public RangeLocks? Locks;

    /// <summary>Whether it was seen last by this name.</summary>
    public bool IsNamed(Inode parent, ReadOnlySpan<byte> name) => Parent == parent && name.SequenceEqual(Name);

    /// <summary>Whether that is the other name.</summary>
    public bool IsNamedOtherwise(Inode parent, ReadOnlySpan<byte> name) => OtherParent == parent && name.SequenceEqual(OtherName);
}
