using System.Buffers.Binary;
using Vmm.Vhost.Native;

namespace Vmm.Guest;

/// <summary>Which file system is on a disk image, so that the guest gets its driver.</summary>
internal static class DiskFileSystem
{
    private const int Looked = 0x10050;
    private const int PartitionMark = 0x1FE;

    // Others have data where ext4 has its two bytes, and that leaves those of btrfs as it finds them.
    private static readonly (GuestDriver Driver, int Offset, byte[] Magic)[] s_known =
    [
        (new GuestDriver("xfs", "CONFIG_XFS_FS"), 0, "XFSB"u8.ToArray()),
        (new GuestDriver("squashfs", "CONFIG_SQUASHFS"), 0, "hsqs"u8.ToArray()),
        (new GuestDriver("erofs", "CONFIG_EROFS_FS"), 0x400, [0xE2, 0xE1, 0xF5, 0xE0]),
        (new GuestDriver("f2fs", "CONFIG_F2FS_FS"), 0x400, [0x10, 0x20, 0xF5, 0xF2]),
        (new GuestDriver("ext4", "CONFIG_EXT4_FS"), 0x438, [0x53, 0xEF]),
        (new GuestDriver("btrfs", "CONFIG_BTRFS_FS"), 0x10040, "_BHRfS_M"u8.ToArray()),
    ];

    /// <summary>The driver of the file system on the image at <paramref name="path"/>.</summary>
    /// <param name="option">The option that names it, for messages.</param>
    /// <param name="path">The image.</param>
    /// <exception cref="VmmException">It cannot be read, or has no file system that is known.</exception>
    public static GuestDriver DriverOf(string option, string path)
    {
        byte[] start = new byte[Looked];
        try
        {
            using RegularFile file = RegularFile.OpenRead(path);
            file.Read(start, 0);
        }
        catch (ErrnoException e)
        {
            throw new VmmException($"{option}: {e.Message}", e);
        }
        catch (InvalidDataException e)
        {
            throw new VmmException($"{option}: {path} {e.Message}: give a directory, or a raw disk image", e);
        }
        foreach ((GuestDriver driver, int offset, byte[] magic) in s_known)
        {
            if (start.AsSpan(offset).StartsWith(magic))
                return driver;
        }
        throw new VmmException(BinaryPrimitives.ReadUInt16LittleEndian(start.AsSpan(PartitionMark)) == 0xAA55
            ? $"{option}: {path} is a disk with partitions: give an image with a file system alone (such as one by mkfs.ext4 -d)"
            : $"{option}: {path} has none of the file systems {string.Join(", ", s_known.Select(known => known.Driver.Module))} on it");
    }
}
