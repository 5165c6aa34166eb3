namespace Vmm.Tests.Fakes;

/// <summary>Counts what this process has open of the kinds that vhost-user passes around, to find what was not closed.</summary>
internal static class PassedDescriptors
{
    private static readonly string[] s_kinds = ["socket:", "anon_inode:[eventfd]", "anon_inode:[timerfd]", "/memfd:"];

    public static int Count() => List().Count;

    /// <summary>Waits until as few are open as before; threads that end close theirs by themselves.</summary>
    public static void ReturnTo(int before) =>
        Eventually.True(() => Count() <= before, () => $"{Count()} descriptors are open, {before} were before: {string.Join(", ", List())}");

    private static List<string> List()
    {
        var list = new List<string>();
        foreach (string entry in Directory.GetFileSystemEntries("/proc/self/fd"))
        {
            string? target = null;
            try
            {
                target = new FileInfo(entry).LinkTarget;
            }
            catch (IOException)
            {
                // Closed meanwhile.
            }
            // The runtime has memory of its own, for the code that it compiles.
            if (target is not null && !target.StartsWith("/memfd:doublemapper", StringComparison.Ordinal)
                && Array.Exists(s_kinds, kind => target.StartsWith(kind, StringComparison.Ordinal)))
                list.Add($"{Path.GetFileName(entry)} {target}");
        }
        return list;
    }
}
