namespace Vmm.Cli;

/// <summary>A value <c>file=PATH[,truncate=on|off]</c>: a file that takes output. The path is all before the last key, with whatever commas and quotes it
/// has.</summary>
/// <param name="Path">The file.</param>
/// <param name="Truncate">Whether it is emptied first (off by default: output is added at its end, so that a log can be rotated).</param>
internal readonly record struct OutputFileValue(string Path, bool Truncate)
{
    /// <summary>What it begins with.</summary>
    public const string Prefix = "file=";

    private const string Key = ",truncate=";

    /// <summary>Whether <paramref name="text"/> is such a value.</summary>
    public static bool Fits(string text) => text.StartsWith(Prefix, StringComparison.Ordinal);

    /// <summary>Reads it.</summary>
    /// <exception cref="UsageException">There is no path.</exception>
    public static OutputFileValue Parse(string option, string text)
    {
        string path = text[Prefix.Length..];
        bool truncate = path.EndsWith($"{Key}on", StringComparison.Ordinal);
        if (truncate || path.EndsWith($"{Key}off", StringComparison.Ordinal))
            path = path[..path.LastIndexOf(Key, StringComparison.Ordinal)];
        return path.Length > 0 ? new OutputFileValue(path, truncate) : throw new OptionValue(option, null, text).Refuse("has no path");
    }
}
