using System.Globalization;

namespace Vmm.Cli.Checks;

/// <summary>The stable release of Linux, such as 6.1.117, on which the host's kernel is based.</summary>
internal static class StableRelease
{
    /// <summary>Reads it. Distributions that keep the third number at 0 tell the real one elsewhere, or not at all.</summary>
    /// <returns>The release, and whether the kernel's maker may have put other fixes into it; null where the kernel does not tell.</returns>
    public static (Version Version, bool HasOthers)? Read(HostView host)
    {
        // Ubuntu's: "Ubuntu 5.15.0-130.140-generic 5.15.167".
        string[] signature = host.ReadText("/proc/version_signature").Trim().Split(' ');
        if (signature.Length == 3 && Parse(signature[2], out _) is Version ubuntu)
            return (ubuntu, true);

        // Debian's: "Linux version 6.1.0-50-amd64 (...) #1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-16)".
        string[] words = host.ReadText("/proc/version").Trim().Split(' ');
        int debian = Array.IndexOf(words, "Debian");
        if (debian >= 0 && debian + 1 < words.Length && Parse(words[debian + 1], out _) is Version stable)
            return (stable, false);

        // Others, such as 6.12.95+deb12-amd64, 6.19.0 and 6.19.0-rc3. But 5.14.0-503.el9 has the fixes of later releases.
        Version? release = Parse(host.ReadText("/proc/sys/kernel/osrelease").Trim(), out string rest);
        bool hasOthers = rest.Length > 0 && !rest.StartsWith("-rc", StringComparison.Ordinal);
        return release is null || (release.Build == 0 && hasOthers) ? null : (release, hasOthers);
    }

    /// <summary>The three numbers that <paramref name="text"/> begins with.</summary>
    private static Version? Parse(string text, out string rest)
    {
        int end = 0;
        while (end < text.Length && (char.IsAsciiDigit(text[end]) || text[end] == '.'))
            end++;
        rest = text[end..];
        string[] numbers = text[..^rest.Length].Split('.');
        return numbers.Length == 3 && Number(numbers[0]) is int major && Number(numbers[1]) is int minor && Number(numbers[2]) is int patch
            ? new Version(major, minor, patch)
            : null;
    }

    private static int? Number(string text) => int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int number) ? number : null;
}
