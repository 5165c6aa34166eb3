using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Devices.Backends.FileSystem;

/// <content>Files that give rights on the host to whoever uses them, where the guest is not to make any (<see cref="FileSystemOptions.PrivilegedFiles"/>).</content>
internal sealed partial class FuseServer
{
    private const uint SetIdBits = 0xC00;       // S_ISUID and S_ISGID
    private const uint CharacterDevice = 0x2000, BlockDevice = 0x6000;      // S_IFCHR and S_IFBLK

    private static ReadOnlySpan<byte> FileCapabilities => "security.capability\0"u8;

    // The mode that a file gets of one that the guest wants. The bits mean something else for a directory: what is made there belongs to its group.
    private uint AllowedMode(uint mode, bool isDirectory) => Options.PrivilegedFiles || isDirectory ? mode : mode & ~SetIdBits;

    // A character device with number 0 is none: overlayfs marks with it what is not there.
    private bool IsAllowedNode(uint type, uint device) =>
        Options.PrivilegedFiles || type is not (CharacterDevice or BlockDevice) || (type == CharacterDevice && device == 0);

    private bool IsAllowedXattr(ReadOnlySpan<byte> hostName) =>
        Options.PrivilegedFiles || !hostName[..(hostName.IndexOf((byte)0) + 1)].SequenceEqual(FileCapabilities);

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
