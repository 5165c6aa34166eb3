using System.Globalization;

namespace Vmm.Machine;

/// <summary>Reads the small text files in which the kernel tells about the host.</summary>
internal static class HostText
{
    /// <summary>The text of the file <paramref name="path"/> below <paramref name="root"/>; empty where it cannot be read.</summary>
    public static string Read(string root, string path)
    {
        try
        {
            return File.ReadAllText(Path.Join(root, path));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return "";
        }
    }

    /// <summary>The number that is all of <paramref name="text"/> but for white space; null if it is anything else.</summary>
    public static ulong? Number(string text) =>
        ulong.TryParse(text.AsSpan().Trim(), NumberStyles.None, CultureInfo.InvariantCulture, out ulong number) ? number : null;

    /// <summary>The number in the line that begins with <paramref name="name"/>, without its unit kB; null where there is none.</summary>
    public static ulong? Field(string text, string name)
    {
        foreach (string line in text.Split('\n'))
        {
            if (line.StartsWith(name, StringComparison.Ordinal))
                return Number(line[name.Length..].Replace("kB", "", StringComparison.Ordinal));
        }
        return null;
    }
}
