namespace Vmm.Cli;

/// <summary>A directory that goes with this object.</summary>
internal sealed class TemporaryDirectory(string path) : IDisposable
{
    /// <summary>Where it is.</summary>
    public string Path { get; } = path;

    /// <inheritdoc/>
    public void Dispose()
    {
        try
        {
            Directory.Delete(Path, recursive: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // Somebody else has taken it away.
        }
    }
}
