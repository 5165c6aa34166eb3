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

    // The host's name of the guest's file capabilities, with a null byte; null where it is the same, or there is none.
    private readonly byte[]? _renamedCapabilities;

    // The part of a wanted mode that a new file gets. A directory keeps the bits: they give no rights there, only its group to the files in it.
    private uint AllowedMode(uint mode, bool isDirectory) => Options.PrivilegedFiles || isDirectory ? mode : mode & ~SetIdBits;

    // A character device with number 0 gives no rights: overlayfs uses it as the mark of a removed file.
    private bool IsAllowedNode(uint type, uint device) =>
        Options.PrivilegedFiles || type is not (CharacterDevice or BlockDevice) || (type == CharacterDevice && device == 0);

    private bool IsAllowedXattr(ReadOnlySpan<byte> hostName) =>
        Options.PrivilegedFiles || !hostName[..(hostName.IndexOf((byte)0) + 1)].SequenceEqual(FileCapabilities);

    private static byte[]? RenamedCapabilities(XattrMap map)
    {
        Span<byte> name = stackalloc byte[HostNameRoom];
        if (map.ToHost(FileCapabilities[..^1], name) < 0)
            return null;
        name = name[..(name.IndexOf((byte)0) + 1)];
        return name.SequenceEqual(FileCapabilities) ? null : name.ToArray();
    }

    // Called before the guest changes a file's content or owner. The kernel then takes file capabilities away (file_remove_privs of fs/inode.c, chown_common of fs/open.c), but does not
    // know them by another name (CVE-2021-20263).
    private int TakeCapabilitiesAway(Inode inode, in HeldDescriptor file)
    {
        if (_renamedCapabilities is null || !inode.IsRegular)
            return 0;
        // Most files have none. A look costs less than the removal of an attribute that is not there, which begins a transaction on the disk.
        int error = ExtendedAttributes.Get(in file, _renamedCapabilities, default);
        if (error is not (-Errnos.Enodata or -Errnos.Eopnotsupp))
            error = ExtendedAttributes.Remove(in file, _renamedCapabilities);
        return error is -Errnos.Enodata or -Errnos.Eopnotsupp ? 0 : error;
    }

    /// <summary>A thread that has another user's identity makes files of that user wherever the guest's kernel lets him: it gets into all directories, as before, and makes device nodes.
    /// Where it acts for the guest's root it has all rights: that root may be an ordinary user on this host. Once it has its own identity back, it has the rights of all threads again.</summary>
    /// <param name="hasAll">Whether it has all rights: it acts for the guest's root, or does more than making a file.</param>
    /// <returns>False if the kernel refused.</returns>
    public bool TryKeepRights(bool hasAll)
    {
        ulong all = Capabilities;
        return ThreadPrivileges.Set(hasAll ? all : all & ~(OfFiles & ~(ThreadPrivileges.DacOverride | ThreadPrivileges.Mknod)), all) == 0;
    }

    // While the guest changes what is in a file. The host's users may have made it privileged since the guest has opened it.
    private WithoutSetId BeginChange(bool isWanted) => WithoutSetId.Begin(this, isWanted || !Options.PrivilegedFiles);

    // Takes the set-group-id bit away when a user who is not in the file's group changes its ACL. The host's kernel would do it for such a process, but this process may be in the group.
    private int TakeSetGroupAway(in HeldDescriptor path)
    {
        const uint setGroup = 0x400;    // S_ISGID
        int error = FileTree.GetStatus(in path, out FileStatus status);
        if (error < 0 || (status.Mode & setGroup) == 0)
            return error;
        using HeldDescriptor links = _links.Hold();
        return FileTree.ChangeMode(in links, in path, status.Mode & 0xFFFu & ~setGroup);
    }

    // The guest's kernel leaves this check to this side: the caller must be the file's owner, as the guest sees it, or the guest's root.
    private int CheckOwner(FuseRequest request, in HeldDescriptor file)
    {
        uint user = request.Header.User;
        if (user == 0)
            return 0;
        int error = FileTree.GetStatus(in file, out FileStatus status);
        return error < 0 ? error : Options.Users.ToGuest(status.UserId) == user ? 0 : -Errnos.Eperm;
    }

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
