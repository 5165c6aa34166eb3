using System.Buffers.Binary;

namespace Vmm.Boot;

/// <summary>Names a file that is no kernel for us by its first bytes, so that an error can say what was given.</summary>
internal static class ForeignFile
{
    private const int Arm64MagicOffset = 56;   // Linux Documentation/arch/arm64/booting.rst, "Call the kernel image"

    /// <summary>What the file that begins with <paramref name="head"/> seems to be, or null.</summary>
    public static string? Describe(ReadOnlySpan<byte> head)
    {
        if (head.StartsWith("#!"u8))
            return "a script";
        if (head is [0x89, (byte)'P', (byte)'N', (byte)'G', ..])
            return "a PNG image";
        if (head.Length >= Arm64MagicOffset + 4 && head.Slice(Arm64MagicOffset, 4).SequenceEqual("ARM\x64"u8))
            return "an arm64 kernel Image";
        if (head is [0x1F, 0x8B, ..])
            return "a gzip file";
        if (head is [0xFD, (byte)'7', (byte)'z', (byte)'X', (byte)'Z', 0, ..])
            return "an xz file";
        if (head is [0x28, 0xB5, 0x2F, 0xFD, ..])
            return "a zstd file";
        if (head.StartsWith("BZh"u8))
            return "a bzip2 file";
        if (head.StartsWith("07070"u8))
            return "a cpio archive (an initramfs?)";
        if (head.StartsWith("!<arch>\n"u8))
            return "an ar archive or Debian package";
        if (head is [(byte)'Q', (byte)'F', (byte)'I', 0xFB, ..])
            return "a qcow2 disk image";
        if (head is [0x27, 0x05, 0x19, 0x56, ..])
            return "a U-Boot image";
        if (head.Length >= 0x200 && BinaryPrimitives.ReadUInt16LittleEndian(head[0x1FE..]) == 0xAA55)
            return "a boot sector or disk image";
        if (head.StartsWith("MZ"u8))
            return "a Windows or EFI program";
        return head.IndexOfAnyExceptInRange((byte)'\t', (byte)'~') < 0 ? "a text file" : null;
    }
}
