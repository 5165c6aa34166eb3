using NUnit.Framework;
using Vmm.Tests.Integration;
using Vmm.Tests.Integration.Backends;
using Vmm.Tests.Integration.Linux.Devices;

namespace Vmm.Tests.Devices.Backends.FileSystem;

/// <summary>A test of <c>vmm backend fs</c>, in a process of its own and confined as for any front-end, with a directory.</summary>
public abstract class FileSystemTest : BackendTest
{
    private protected string Shared { get; private set; } = "";

    [SetUp]
    public void MakeShared() => Shared = Directory.CreateDirectory(Path.Combine(Scratch, "shared")).FullName;

    private protected string In(string path) => Path.Combine(Shared, path);

    private protected VmmProcess Serve(params string[] options) => StartBackend("fs", ["--shared-dir", Shared, .. options]);

    private protected FuseGuest Begin(params string[] options)
    {
        Serve(options);
        return Keep(new FuseGuest(SocketPath));
    }

    /// <summary>Whether a program of the host's finds <c>file</c> locked, when it asks for a lock in these words of Python's.</summary>
    private protected bool IsLockedOnHost(string expression)
    {
        string script = $"import fcntl\nf = open('{In("file")}', 'r+b')\ntry:\n    {expression}\n    print('free')\nexcept BlockingIOError:\n    print('locked')\n";
        return HostCommand.Run("python3", "-c", script).Trim() == "locked";
    }

    /// <summary>The descriptors that a process has of a file of the directory which has lost that name, as /proc says.</summary>
    private protected string[] DescriptorsOf(VmmProcess process, string removed) =>
        [.. Directory.GetFiles($"/proc/{process.Id}/fd").Select(path => new FileInfo(path).LinkTarget ?? "").Where(target => target.EndsWith($"/{removed} (deleted)", StringComparison.Ordinal))];

    private protected static void RequireRoot()
    {
        if (!Environment.IsPrivilegedProcess)
            Assert.Ignore("acts for other users: run as root");
    }
}
