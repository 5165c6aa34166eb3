using System.Runtime.CompilerServices;

namespace Vmm.Cli;

/// <summary>This program, to be started once more.</summary>
internal static class OwnProgram
{
    /// <summary>Its file. It may have been replaced or removed since it was started; but this is the one that is running.</summary>
    public static string Path => RuntimeFeature.IsDynamicCodeSupported ? Environment.ProcessPath! : "/proc/self/exe";

    /// <summary>Its arguments before those of a user.</summary>
    public static string[] Arguments =>
        RuntimeFeature.IsDynamicCodeSupported ? [System.IO.Path.Combine(AppContext.BaseDirectory, "vmm.dll")] : [];
}
