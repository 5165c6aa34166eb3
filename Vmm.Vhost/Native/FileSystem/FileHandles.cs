using System.Globalization;
using Vmm.Vhost.Native.Confinement;
using static Vmm.Vhost.Native.FileSystem.KernelCall;

namespace Vmm.Vhost.Native.FileSystem;

/// <summary>Numbers by which files are opened again whatever their names are (name_to_handle_at(2)).</summary>
// SAFETY: the kernel gets a room for a handle with its size in front, a text that is empty, and a place for a number; all outlive the call.
public static unsafe class FileHandles
{
    private const int EmptyPath = 0x1000;   // AT_EMPTY_PATH of linux/fcntl.h
    private const int MostBytes = 128;      // MAX_HANDLE_SZ

    /// <summary>Whether the file system of a directory has them.</summary>
    /// <param name="directory">The directory.</param>
    /// <param name="fileSystem">What kind of file system that is, as /proc/self/mountinfo says.</param>
    /// <exception cref="ErrnoException">The directory cannot be opened.</exception>
    public static bool AreOn(string directory, out string fileSystem)
    {
        using FileDescriptor opened = FileTree.OpenDirectory(directory);
        using HeldDescriptor held = opened.Hold();
        fileSystem = FileTree.GetStatus(in held, out FileStatus status) == 0 ? TypeOf(status.MountId) : Unknown;
        // struct file_handle of linux/fcntl.h: room for so many bytes, their kind, the bytes.
        byte* handle = stackalloc byte[2 * sizeof(int) + MostBytes];
        *(int*)handle = MostBytes;
        byte empty = 0;
        int mount;
        return Do(SystemCallNumber.NameToHandleAt, held.Number, (nint)(&empty), (nint)handle, (nint)(&mount), EmptyPath) != -Errnos.Eopnotsupp;
    }

    private static string Unknown => "one that /proc/self/mountinfo does not tell of";

    private static string TypeOf(ulong mount)
    {
        string start = string.Create(CultureInfo.InvariantCulture, $"{mount} ");
        foreach (string line in File.ReadLines("/proc/self/mountinfo"))
        {
            // Behind a dash come the type, the source and the options of the file system.
            int dash = line.IndexOf(" - ", StringComparison.Ordinal);
            if (dash >= 0 && line.StartsWith(start, StringComparison.Ordinal))
                return line[(dash + 3)..].Split(' ')[0];
        }
        return Unknown;
    }
}
