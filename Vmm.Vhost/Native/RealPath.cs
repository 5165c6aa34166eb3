using System.Runtime.InteropServices;

namespace Vmm.Vhost.Native;

/// <summary>Where a path leads to, and whether that is in a directory.</summary>
public static unsafe partial class RealPath
{
    private const int MaxPath = 4096;   // PATH_MAX, with the null byte (linux/limits.h)

    /// <summary>The absolute path of what <paramref name="path"/> leads to, without symbolic links, "." and ".." in it (realpath(3)).</summary>
    /// <returns>The path, as <see cref="ByteText"/>; null if nothing is there, or this process may not look.</returns>
    public static string? TryResolve(string path)
    {
        byte* result = stackalloc byte[MaxPath];
        fixed (byte* name = FileDescriptor.NullTerminated(path))
        {
            // SAFETY: the name is null-terminated and pinned; the function writes at most PATH_MAX bytes, with a null at the end.
            return Resolve(name, result) is null ? null : ByteText.Decode(MemoryMarshal.CreateReadOnlySpanFromNullTerminated(result));
        }
    }

    /// <summary>The absolute path of <paramref name="path"/>, which is relative to the working directory, without "." and ".." in it; no file is looked at. The runtime's own does not
    /// keep the bytes of a working directory that is not UTF-8.</summary>
    public static string Absolute(string path) => Path.IsPathRooted(path) ? Path.GetFullPath(path) : Path.GetFullPath(path, ProcessText.CurrentDirectory());

    /// <summary>Whether <paramref name="path"/> is <paramref name="directory"/> or below it. Both are absolute and have no needless parts; no file is looked at.</summary>
    public static bool IsIn(string path, string directory) =>
        path == directory || path.StartsWith(Path.EndsInDirectorySeparator(directory) ? directory : directory + "/", StringComparison.Ordinal);

    [LibraryImport("libc", EntryPoint = "realpath")]
    private static partial byte* Resolve(byte* path, byte* resolved);
}
