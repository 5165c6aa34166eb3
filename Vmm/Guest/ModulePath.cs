using Vmm.Vhost.Native;

namespace Vmm.Guest;

/// <summary>Paths of modules, as lists in a directory tell them: whoever made the directory may have written anything there.</summary>
internal static class ModulePath
{
    /// <summary>The path of <paramref name="path"/> in <paramref name="directory"/>.</summary>
    /// <exception cref="VmmException">It leads out of the directory.</exception>
    public static string In(string directory, string path)
    {
        string root = RealPath.Absolute(directory);
        string full = Path.GetFullPath(path, root);
        return RealPath.IsIn(full, root)
            ? full
            : throw new VmmException($"the list of modules in {directory} names {path}, which is not in that directory: use the modules as they were installed or built");
    }
}
