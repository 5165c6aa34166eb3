using Tmds.Linux;

namespace Vmm.Vhost.Native;

/// <summary>Directories that only their owner may look into.</summary>
public static unsafe class PrivateDirectory
{
    private const int OwnerOnly = 0x1C0;   // 0700

    /// <summary>Makes a new one.</summary>
    /// <param name="parent">Where.</param>
    /// <param name="prefix">What its name begins with; the rest is random.</param>
    /// <returns>Its path.</returns>
    /// <exception cref="ErrnoException">mkdir(2) failed, also where something of that name is there already.</exception>
    public static string Create(string parent, string prefix)
    {
        string path = Path.Combine(parent, prefix + Path.GetRandomFileName());
        Make(path);
        return path;
    }

    /// <summary>Makes <paramref name="path"/>.</summary>
    /// <exception cref="ErrnoException">mkdir(2) failed, also where something of that name is there already.</exception>
    public static void Make(string path)
    {
        fixed (byte* name = FileDescriptor.NullTerminated(path))
        {
            // SAFETY: the name is null-terminated and pinned for the call.
            if (LibC.mkdir(name, OwnerOnly) < 0)
                throw ErrnoException.FromLastError($"cannot make {path}");
        }
    }
}
