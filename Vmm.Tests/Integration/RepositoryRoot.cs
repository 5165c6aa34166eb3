using NUnit.Framework;

namespace Vmm.Tests.Integration;

/// <summary>The directory of the working copy that the tests were built from.</summary>
internal static class RepositoryRoot
{
    private static readonly Lazy<string> s_path = new(Find);

    /// <summary>A path below it.</summary>
    public static string Combine(params string[] parts) => Path.Combine([s_path.Value, .. parts]);

    private static string Find()
    {
        string start = TestContext.CurrentContext.TestDirectory;
        for (string? directory = start; directory is not null; directory = Path.GetDirectoryName(directory))
        {
            if (File.Exists(Path.Combine(directory, "Vmm.sln")))
                return directory;
        }
        throw new InvalidOperationException($"no Vmm.sln above {start}: run the tests from a working copy");
    }
}
