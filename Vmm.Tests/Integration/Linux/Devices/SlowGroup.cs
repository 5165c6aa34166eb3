using NUnit.Framework;
using Vmm.Tests.Fakes;

namespace Vmm.Tests.Integration.Linux.Devices;

/// <summary>A control group whose processes get few requests a second from a block device of the host.</summary>
internal sealed class SlowGroup : IDisposable
{
    private readonly string _mount;

    /// <summary>Makes one. The test is ignored where the host cannot have one.</summary>
    /// <param name="scratch">Where the hierarchy is mounted.</param>
    /// <param name="device">The device, whose processes directly read from and write to it.</param>
    /// <param name="perSecond">How many reads, and how many writes, it does a second; at least 2.</param>
    public SlowGroup(string scratch, string device, int perSecond)
    {
        _mount = Directory.CreateDirectory(System.IO.Path.Combine(scratch, "cgroup")).FullName;
        HostCommand.Run("mount", "-t", "cgroup2", "none", _mount);
        try
        {
            if (!File.ReadAllText(System.IO.Path.Combine(_mount, "cgroup.controllers")).Split(' ', '\n').Contains("io"))
                Assert.Ignore("this host's version 2 control groups do not limit input and output");
            File.WriteAllText(System.IO.Path.Combine(_mount, "cgroup.subtree_control"), "+io");
            Path = Directory.CreateDirectory(System.IO.Path.Combine(_mount, $"vmm-test-{Environment.ProcessId}")).FullName;
            string number = File.ReadAllText($"/sys/class/block/{System.IO.Path.GetFileName(device)}/dev").Trim();
            File.WriteAllText(System.IO.Path.Combine(Path, "io.max"), $"{number} riops={perSecond} wiops={perSecond}");
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    private string? Path { get; }

    /// <summary>Takes a process in, with all its threads.</summary>
    public void Add(int process) => File.WriteAllText(System.IO.Path.Combine(Path!, "cgroup.procs"), $"{process}");

    /// <inheritdoc/>
    public void Dispose()
    {
        if (Path is not null)
            Eventually.True(TryRemove, () => $"{Path} has processes");
        HostCommand.Run("umount", _mount);
    }

    // Its processes must have ended; the kernel may need a moment for that.
    private bool TryRemove()
    {
        try
        {
            Directory.Delete(Path!);
            return true;
        }
        catch (IOException)
        {
            return false;
        }
    }
}
