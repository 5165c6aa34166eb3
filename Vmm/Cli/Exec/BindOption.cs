using Vmm.Vhost.Native;

namespace Vmm.Cli.Exec;

/// <summary>The value of <c>--bind</c>: <c>DIR[:GUESTDIR]</c>.</summary>
internal static class BindOption
{
    /// <summary>The option's name.</summary>
    public const string Name = "--bind";

    /// <summary>The option for directories that the guest may only read.</summary>
    public const string ReadOnlyName = "--bind-ro";

    // What the guest's own kernel shows there no command can do without.
    private static readonly string[] s_ofTheGuest = ["/proc", "/sys", "/dev"];

    /// <summary>The directory of this host, and where the guest has it: both absolute, the second without dots and needless slashes.</summary>
    /// <param name="option">The option.</param>
    /// <param name="text">Its value.</param>
    /// <exception cref="UsageException">The value is malformed, or there is no such directory.</exception>
    public static (string Source, string Target) Parse(string option, string text)
    {
        var value = new OptionValue(option, null, text);
        // A directory may have a colon in its name: as long as it is one, all of it is meant.
        int colon = FileKind.IsDirectory(text) ? -1 : text.LastIndexOf(':');
        (string source, string? target) = colon < 0 ? (text, null) : (text[..colon], text[(colon + 1)..]);
        if (!FileKind.IsDirectory(source))
            throw value.Refuse($"names no directory of this host: write DIR or DIR:GUESTDIR");
        source = RealPath.Absolute(source);
        target ??= source;
        if (!target.StartsWith('/'))
            throw value.Refuse("has no absolute path behind the colon: that is where the guest has the directory");
        target = Path.TrimEndingDirectorySeparator(RealPath.Absolute(target));
        if (target == "/")
            throw value.Refuse("would be the guest's /: write DIR:GUESTDIR, or give the directory as --root");
        if (Array.Find(s_ofTheGuest, each => RealPath.IsIn(target, each)) is string place)
            throw value.Refuse($"would cover what the guest's kernel has in {place}: write DIR:GUESTDIR with another GUESTDIR");
        return (source, target);
    }
}
