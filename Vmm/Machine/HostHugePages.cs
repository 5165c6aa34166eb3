using System.Globalization;

namespace Vmm.Machine;

/// <summary>The huge page sizes of this host (Linux Documentation/admin-guide/mm/hugetlbpage.rst).</summary>
internal static class HostHugePages
{
    private const string Directory = "sys/kernel/mm/hugepages";
    private const string Prefix = "hugepages-";
    private const string Suffix = "kB";

    /// <summary>The sizes in bytes, rising; none where the kernel has no huge pages.</summary>
    /// <param name="root">Where the host's file system begins.</param>
    public static ulong[] Sizes(string root = "/")
    {
        string directory = Path.Combine(root, Directory);
        if (!System.IO.Directory.Exists(directory))
            return [];
        var sizes = new List<ulong>();
        foreach (string entry in System.IO.Directory.EnumerateDirectories(directory, Prefix + "*" + Suffix))
        {
            ReadOnlySpan<char> kib = Path.GetFileName(entry.AsSpan())[Prefix.Length..^Suffix.Length];
            if (uint.TryParse(kib, NumberStyles.None, CultureInfo.InvariantCulture, out uint size))
                sizes.Add((ulong)size << 10);
        }
        sizes.Sort();
        return [.. sizes];
    }

    /// <summary>Checks that the host has huge pages of <paramref name="size"/> bytes.</summary>
    /// <exception cref="VmmException">It has not; the message names those that it has.</exception>
    public static void Require(ulong size, string root = "/")
    {
        ulong[] sizes = Sizes(root);
        if (Array.IndexOf(sizes, size) >= 0)
            return;
        string offer = sizes.Length == 0 ? "it has none: leave hugepages off" : "it has " + string.Join(", ", Array.ConvertAll(sizes, Name));
        throw new VmmException($"--memory: this host has no huge pages of {Name(size)}: {offer}");
    }

    /// <summary>The directory with the counters of pages of <paramref name="size"/> bytes, below the root.</summary>
    public static string CountersOf(ulong size) => $"{Directory}/{Prefix}{size >> 10}{Suffix}";

    /// <summary><paramref name="size"/> as a person writes it: 2M, 1G.</summary>
    public static string Name(ulong size) =>
        size >= 1 << 30 && size % (1 << 30) == 0 ? $"{size >> 30}G" : size >= 1 << 20 && size % (1 << 20) == 0 ? $"{size >> 20}M" : $"{size >> 10}K";
}
