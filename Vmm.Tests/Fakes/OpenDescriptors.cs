using Vmm.Vhost.Native;

namespace Vmm.Tests.Fakes;

/// <summary>Counts this process's sockets, eventfds and shared memory, to find those that nobody closes. Others the runtime opens as it
/// pleases.</summary>
internal static class OpenDescriptors
{
    public static int Count => List().Count;

    /// <summary>Waits until there are no more than before: what other threads close may take a moment.</summary>
    public static void AssertBackTo(int before) =>
        Eventually.True(() => Count <= before, () => $"{Count} descriptors are open, {before} were before:\n{string.Join('\n', List())}");

    /// <summary>How many descriptors this process has of the pipe that <paramref name="end"/> belongs to.</summary>
    public static int OfPipe(FileDescriptor end)
    {
        string name = Target($"/proc/self/fd/{end.Number}");
        return Directory.GetFiles("/proc/self/fd").Count(path => Target(path) == name);
    }

    private static List<string> List() =>
        [.. Directory.GetFiles("/proc/self/fd").Select(Describe).Where(name =>
            name.Contains("socket:") || name.Contains("eventfd") || (name.Contains("memfd:") && !name.Contains("doublemapper")))];

    private static string Describe(string path) => $"{path} {Target(path)}";

    private static string Target(string path)
    {
        try
        {
            return File.ResolveLinkTarget(path, returnFinalTarget: false)?.FullName ?? "";
        }
        catch (IOException)
        {
            return "";
        }
    }
}
