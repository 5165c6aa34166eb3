using static System.Buffers.Binary.BinaryPrimitives;

namespace Vmm.Tests.Integration.Linux;

/// <summary>A file system of Linux's read-only kind EROFS, without compression (Linux Documentation/filesystems/erofs.rst, fs/erofs/erofs_fs.h).</summary>
internal static class ErofsImage
{
    private const int BlockBits = 12;
    private const int BlockSize = 1 << BlockBits;
    private const int InodeBlock = 1, DirectoryBlock = 2, FileBlock = 3;    // the superblock is in block 0
    private const int InodeSize = 32;       // a compact one; its data lie in blocks of their own, in order (EROFS_INODE_FLAT_PLAIN)
    private const ushort RootInode = 1, FileInode = 2;
    private const byte RegularFile = 1, Directory = 2;

    /// <summary>One whose root has one program in it, root's.</summary>
    public static byte[] WithOneFile(string name, byte[] content)
    {
        (string Name, ushort Inode, byte Type)[] entries = [(".", RootInode, Directory), ("..", RootInode, Directory), (name, FileInode, RegularFile)];
        byte[] image = new byte[(FileBlock << BlockBits) + ((content.Length + BlockSize - 1) & ~(BlockSize - 1))];

        Span<byte> superblock = image.AsSpan(1024);
        WriteUInt32LittleEndian(superblock, 0xE0F5E1E2);
        superblock[12] = BlockBits;
        WriteUInt16LittleEndian(superblock[14..], RootInode);
        WriteUInt64LittleEndian(superblock[16..], 2);       // inodes
        WriteUInt32LittleEndian(superblock[36..], (uint)(image.Length >> BlockBits));
        WriteUInt32LittleEndian(superblock[40..], InodeBlock);

        Span<byte> directory = image.AsSpan(DirectoryBlock << BlockBits);
        int size = entries.Length * 12;
        for (int i = 0; i < entries.Length; i++)
        {
            Span<byte> entry = directory[(i * 12)..];
            WriteUInt64LittleEndian(entry, entries[i].Inode);
            WriteUInt16LittleEndian(entry[8..], (ushort)size);
            entry[10] = entries[i].Type;
            size += System.Text.Encoding.ASCII.GetBytes(entries[i].Name, directory[size..]);
        }
        WriteInode(image, RootInode, 0x41ED, 2, size, DirectoryBlock);      // drwxr-xr-x
        WriteInode(image, FileInode, 0x81ED, 1, content.Length, FileBlock); // -rwxr-xr-x
        content.CopyTo(image, FileBlock << BlockBits);
        return image;
    }

    private static void WriteInode(byte[] image, ushort number, ushort mode, ushort links, int size, uint block)
    {
        Span<byte> inode = image.AsSpan((InodeBlock << BlockBits) + (number * InodeSize));
        WriteUInt16LittleEndian(inode[4..], mode);
        WriteUInt16LittleEndian(inode[6..], links);
        WriteUInt32LittleEndian(inode[8..], (uint)size);
        WriteUInt32LittleEndian(inode[16..], block);
        WriteUInt32LittleEndian(inode[20..], number);
    }
}
