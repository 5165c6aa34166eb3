using Vmm.Kvm;
using Vmm.Machine;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.Confinement;

namespace Vmm.Cli.Checks;

/// <summary>The host as the checks see it: a file system below some root, and /dev/kvm. Tests give a made-up one.</summary>
internal sealed class HostView(string root, Func<string, IKvmProbe> openKvm)
{
    /// <summary>The host that this runs on.</summary>
    public static HostView Real { get; } = new("/", path => new KvmDevice(path));

    /// <summary>Where the host's file system begins.</summary>
    public string Root { get; } = root;

    /// <summary>Says the version of Landlock; 0 where the kernel has none.</summary>
    public Func<int> LandlockVersion { get; init; } = () => Landlock.Version;

    /// <summary>Says 0 if the kernel filters system calls, or the error number with which it refuses to.</summary>
    public Func<int> SeccompError { get; init; } = SeccompFilter.Probe;

    /// <summary>Says 0 if this process may have an io_uring that the kernel can restrict, or the error number with which it is refused.</summary>
    public Func<int> IoUringError { get; init; } = IoUring.Probe;

    /// <summary>Opens /dev/kvm.</summary>
    /// <exception cref="ErrnoException">It cannot be opened.</exception>
    public IKvmProbe OpenKvm() => openKvm(Resolve("/dev/kvm"));

    /// <summary>Opens a device for reading and writing, and closes it again.</summary>
    /// <returns>0, or the error number of open(2).</returns>
    public int TryOpen(string path)
    {
        try
        {
            FileDescriptor.Open(Resolve(path), OpenMode.ReadWrite).Dispose();
            return 0;
        }
        catch (ErrnoException e)
        {
            return e.Errno;
        }
    }

    /// <summary>The text of a file; empty where it cannot be read.</summary>
    public string ReadText(string path) => HostText.Read(Root, path);

    /// <summary>The names in /dev that begin with <paramref name="prefix"/>, sorted.</summary>
    public string[] ListDevices(string prefix)
    {
        try
        {
            string[] paths = Directory.GetFileSystemEntries(Resolve("/dev"), prefix + "*");
            Array.Sort(paths, StringComparer.Ordinal);
            return Array.ConvertAll(paths, path => "/dev/" + Path.GetFileName(path));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return [];
        }
    }

    private string Resolve(string path) => Path.Join(Root, path);
}
