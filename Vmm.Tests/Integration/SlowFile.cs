using NUnit.Framework;
using Vmm.Tests.Integration.Linux.Devices;

namespace Vmm.Tests.Integration;

/// <summary>A file that does few requests a second: qemu-storage-daemon gives it out by FUSE, and limits it. Gone when disposed, with the
/// requests that it has not done.</summary>
internal sealed class SlowFile : IDisposable
{
    private readonly HostDaemon _daemon;
    private bool _isDisposed;

    /// <summary>Makes one.</summary>
    /// <param name="path">Where it is to be.</param>
    /// <param name="size">Its size in bytes; it holds zeroes.</param>
    /// <param name="perSecond">How many requests it does in a second.</param>
    /// <param name="requestSize">A larger request counts as several of this size in bytes; 0: each request counts as one.</param>
    public SlowFile(string path, long size, int perSecond, int requestSize)
    {
        if (!Environment.IsPrivilegedProcess || !File.Exists("/dev/fuse"))
            Assert.Ignore("a slow file is a mount by FUSE: run as root where there is /dev/fuse");
        Path = path;
        File.Create(path).Dispose();
        string ready = path + ".pid";
        _daemon = new HostDaemon(
            [ready], "qemu-storage-daemon", ["--pidfile", ready, .. HostDaemon.ThrottledDisk(path + ".raw", size, perSecond, requestSize),
            "--export", $"type=fuse,id=export,node-name=disk,mountpoint={path},writable=on"]);
    }

    /// <summary>Where it is.</summary>
    public string Path { get; }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_isDisposed)
            return;
        _isDisposed = true;
        HostCommand.TryRun("umount", "--lazy", Path);
        _daemon.Dispose();
    }
}
