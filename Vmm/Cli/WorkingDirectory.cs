namespace Vmm.Cli;

/// <summary>The directory that relative paths are relative to.</summary>
internal static class WorkingDirectory
{
    /// <summary>What is wrong with it, and what to do; null if nothing is.</summary>
    public static string? Problem
    {
        get
        {
            try
            {
                _ = Environment.CurrentDirectory;
                return null;
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                return "the working directory was removed, or a directory above it is not yours to read: go to another one (cd /)";
            }
        }
    }
}
