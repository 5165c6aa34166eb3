namespace Vmm.Tests.Fakes;

/// <summary>Counts what this process has open of the kinds that vhost-user passes around, to find what was not closed.</summary>
internal static class OpenDescriptors
{
    private static readonly string[] s_kinds = ["socket:", "anon_inode:[eventfd]", "anon_inode:[timerfd]", "/memfd:", "pipe:"];

    public static int Count()
    {
        int count = 0;
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
            if (target is not null && Array.Exists(s_kinds, kind => target.StartsWith(kind, StringComparison.Ordinal)))
                count++;
        }
        return count;
    }

    /// <summary>Waits until as few are open as before; threads that end close theirs by themselves.</summary>
    public static void ReturnTo(int before) =>
        Eventually.True(() => Count() <= before, () => $"{Count()} descriptors are open, {before} were before");
}
