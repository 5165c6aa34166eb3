namespace Vmm.Cli;

/// <summary>A value <c>file=PATH[,truncate=on|off]</c>: a file that takes output.</summary>
/// <param name="Path">The file.</param>
/// <param name="Truncate">Whether it is emptied first (off by default: output is added at its end, so that a log can be rotated).</param>
internal readonly record struct OutputFileValue(string Path, bool Truncate)
{
    private const string Key = "file";

    /// <summary>What it begins with.</summary>
    public const string Prefix = $"{Key}=";

    /// <summary>Whether <paramref name="text"/> is such a value.</summary>
    public static bool Fits(string text) => text.StartsWith(Prefix, StringComparison.Ordinal);

    /// <summary>Reads it.</summary>
    /// <exception cref="UsageException">There is no path, or something else is in it.</exception>
    public static OutputFileValue Parse(string option, string text)
    {
        KeyValueList list = KeyValueList.Parse(option, text, Key, "truncate");
        OptionValue path = list.Find(Key)!.Value;
        if (path.Text.Length == 0)
            throw path.Refuse("is not a path");
        return new OutputFileValue(path.Text, list.Find("truncate") is { } truncate && Choice.ParseSwitch(truncate));
    }
}
