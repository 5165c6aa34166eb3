using System.Buffers.Binary;
using System.Text;
using Vmm.Boot;
using Vmm.Vhost.Native;

namespace Vmm.Guest;

/// <summary>The release of a kernel, such as <c>6.1.0-18-amd64</c>.</summary>
internal static class KernelRelease
{
    private const int VersionOffset = 0x20E;        // kernel_version of the setup header (Documentation/arch/x86/boot.rst), from 0x200 on
    private const int VersionBase = 0x200;
    private const int MaxLength = 64;               // __NEW_UTS_LEN (linux/utsname.h)

    /// <summary>The release that a kernel's image says.</summary>
    /// <param name="file">A bzImage or an ELF file.</param>
    /// <returns>Null if it says none.</returns>
    /// <exception cref="VmmException">The file cannot be read.</exception>
    public static string? Read(ImageFile file)
    {
        Span<byte> head = stackalloc byte[ElfKernel.HeadSize];
        head = head[..file.Read(head, 0)];
        if (ElfKernel.IsElf(head))
        {
            using MappedFile view = file.Map();
            int banner = view.Bytes.IndexOf("Linux version "u8);
            return banner < 0 ? null : FirstWord(view.Bytes[(banner + "Linux version ".Length)..]);
        }
        if (!SetupHeader.IsPresent(head))
            return null;
        ushort offset = BinaryPrimitives.ReadUInt16LittleEndian(head[VersionOffset..]);
        if (offset == 0)
            return null;
        Span<byte> text = stackalloc byte[MaxLength + 1];
        return FirstWord(text[..file.Read(text, (ulong)VersionBase + offset)]);
    }

    /// <summary>Whether <paramref name="text"/> can be a release: part of a path, and nothing else.</summary>
    public static bool IsValid(string text) =>
        text.Length is > 0 and <= MaxLength && text is not ("." or "..") && text.All(character => character is > ' ' and < '\x7F' and not '/');

    /// <summary>Compares two releases by their numbers: 6.10 is after 6.9, and 6.10-rc1 before 6.10.</summary>
    public static int Compare(string left, string right)
    {
        int l = 0, r = 0;
        while (l < left.Length && r < right.Length)
        {
            if (IsCandidate(left, l) != IsCandidate(right, r))
                return IsCandidate(left, l) ? -1 : 1;
            if (char.IsAsciiDigit(left[l]) && char.IsAsciiDigit(right[r]))
            {
                ReadOnlySpan<char> one = Digits(left, ref l), other = Digits(right, ref r);
                int order = one.Length != other.Length ? one.Length.CompareTo(other.Length) : one.CompareTo(other, StringComparison.Ordinal);
                if (order != 0)
                    return order;
            }
            else if (left[l] != right[r])
            {
                return left[l].CompareTo(right[r]);
            }
            else
            {
                l++;
                r++;
            }
        }
        if (l < left.Length && IsCandidate(left, l))
            return -1;
        if (r < right.Length && IsCandidate(right, r))
            return 1;
        return (left.Length - l).CompareTo(right.Length - r);
    }

    private static bool IsCandidate(string release, int at) => string.CompareOrdinal(release, at, "-rc", 0, 3) == 0;

    private static ReadOnlySpan<char> Digits(string text, ref int at)
    {
        int start = at;
        while (at < text.Length && char.IsAsciiDigit(text[at]))
            at++;
        return text.AsSpan(start, at - start).TrimStart('0');
    }

    private static string? FirstWord(ReadOnlySpan<byte> text)
    {
        text = text[..Math.Min(text.Length, MaxLength + 1)];
        int end = text.IndexOfAny((byte)' ', (byte)0, (byte)'\n');
        string word = end < 0 ? "" : Encoding.ASCII.GetString(text[..end]);
        return IsValid(word) ? word : null;
    }
}
