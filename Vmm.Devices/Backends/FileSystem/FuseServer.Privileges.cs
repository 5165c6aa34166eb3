using Vmm.Vhost.Native;
using Vmm.Vhost.Native.Confinement;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Devices.Backends.FileSystem;

/// <content>Files that give rights on the host to whoever uses them, where the guest is not to make any (<see cref="FileSystemOptions.PrivilegedFiles"/>).</content>
internal sealed partial class FuseServer
{
    private const uint SetIdBits = 0xC00;       // S_ISUID and S_ISGID
    // The capabilities that the kernel takes from a thread that takes on another user's identity (setfsuid(2)), as far as this process has them.
    private const ulong OfFiles = ThreadPrivileges.Chown | ThreadPrivileges.DacOverride | ThreadPrivileges.Fowner | ThreadPrivileges.Fsetid | ThreadPrivileges.Mknod;

    private const uint CharacterDevice = 0x2000, BlockDevice = 0x6000;      // S_IFCHR and S_IFBLK

    /// <summary>The capabilities that the process keeps where it has them, as bits of <see cref="ThreadPrivileges"/>: to act for all users on the files in its directory, as
    /// every virtio-fs daemon does. One that only reads needs to get at them; one whose guest makes no privileged files needs none for that.</summary>
    public ulong KeptCapabilities => UsefulCapabilities & ~Options.GivenUpCapabilities;

    private ulong UsefulCapabilities => !_isRoot ? 0
        : Options.IsReadOnly ? ThreadPrivileges.DacOverride | (Options.PreserveNoAccessTime ? ThreadPrivileges.Fowner : 0)
        : ThreadPrivileges.Chown | ThreadPrivileges.DacOverride | ThreadPrivileges.Fowner | ThreadPrivileges.Fsetid | ThreadPrivileges.SetGid | ThreadPrivileges.SetUid
            | (Options.PrivilegedFiles ? ThreadPrivileges.Mknod | ThreadPrivileges.Setfcap : 0);

    private static ReadOnlySpan<byte> FileCapabilities => "security.capability\0"u8;

    // The mode that a file gets of one that the guest wants. The bits mean something else for a directory: what is made there belongs to its group.
    private uint AllowedMode(uint mode, bool isDirectory) => Options.PrivilegedFiles || isDirectory ? mode : mode & ~SetIdBits;

    // A character device with number 0 is none: overlayfs marks with it what is not there.
    private bool IsAllowedNode(uint type, uint device) =>
        Options.PrivilegedFiles || type is not (CharacterDevice or BlockDevice) || (type == CharacterDevice && device == 0);

    private bool IsAllowedXattr(ReadOnlySpan<byte> hostName) =>
        Options.PrivilegedFiles || !hostName[..(hostName.IndexOf((byte)0) + 1)].SequenceEqual(FileCapabilities);

    /// <summary>A thread that has another user's identity gets into all directories, as before, and makes files of that user all the same. It is as all threads again once it has its own
    /// identity.</summary>
    /// <returns>False if the kernel refused.</returns>
    public bool TryKeepOverride()
    {
        ulong all = Capabilities;
        return ThreadPrivileges.Set(all & ~(OfFiles & ~ThreadPrivileges.DacOverride), all) == 0;
    }

    // While the guest changes what is in a file. The host's users may have made it privileged since the guest has opened it.
    private WithoutSetId BeginChange(bool isWanted) => WithoutSetId.Begin(this, isWanted || !Options.PrivilegedFiles);

    // Before the guest writes to a file that is there. The kernel does it for a process without CAP_FSETID by itself.
    private int TakeSetIdAway(in HeldDescriptor path)
    {
        if (Options.PrivilegedFiles || !ActsForUsers)
            return 0;
        int error = FileTree.GetStatus(in path, out FileStatus status);
        if (error < 0 || !status.IsRegular || (status.Mode & SetIdBits) == 0)
            return error;
        using HeldDescriptor links = _links.Hold();
        return FileTree.ChangeMode(in links, in path, status.Mode & 0xFFFu & ~SetIdBits);
    }
}
