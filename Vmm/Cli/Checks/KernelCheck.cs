using System.Globalization;

namespace Vmm.Cli.Checks;

/// <summary>The host's kernel.</summary>
internal static class KernelCheck
{
    private static readonly Version s_populateWrite = new(5, 14);

    /// <summary>Looks.</summary>
    public static IEnumerable<Finding> Run(HostView host)
    {
        string release = host.ReadText("/proc/sys/kernel/osrelease").Trim();
        return [Parse(release) >= s_populateWrite
            ? Finding.Ok("kernel", release)
            : Finding.MissingOptional("kernel", $"'{release}', and prefault=on needs Linux {s_populateWrite} or later")];
    }

    private static Version? Parse(string release)
    {
        string[] parts = release.Split('.', '-', '+');
        return parts.Length >= 2
            && int.TryParse(parts[0], NumberStyles.None, CultureInfo.InvariantCulture, out int major)
            && int.TryParse(parts[1], NumberStyles.None, CultureInfo.InvariantCulture, out int minor)
            ? new Version(major, minor)
            : null;
    }
}
