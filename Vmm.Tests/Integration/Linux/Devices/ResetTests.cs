using NUnit.Framework;
using Vmm.Tests.Devices.Backends.Block;

namespace Vmm.Tests.Integration.Linux.Devices;

/// <summary>A guest that is reset again and again while it reads and writes: nobody writes to the memory of the next boot.</summary>
/// <remarks>The guest fills memory with a pattern after each boot, sees that it stays as it is, and then uses that memory for
/// 32 requests at a time, with which in flight it resets itself (firmware/guest/resettest.c).</remarks>
public class ResetTests : DeviceTest
{
    private const int Depth = 32;
    private const long DiskSize = 32 << 20;
    private const string Disk = "modprobe -a virtio_mmio virtio_blk\nuntil [ -b /dev/vda ]; do sleep 0.1; done\n";
    private const string Share = "modprobe -a virtio_mmio virtiofs\nmkdir /share\nmount -t virtiofs work /share || exit 1\n";

    private static readonly int s_resets = IsFull ? 50 : 1;

    // So few that 32 requests take longer than a back-end may take to stop, and than a boot. A control group of the kernel takes no 1.
    private static readonly int s_perSecond = IsFull ? 1 : 3;
    private static readonly int s_readsPerSecond = Math.Max(2, s_perSecond);

    // In the host that is emulated a boot takes 5 to 15 s, and the end of the requests of the boot before it as long.
    private static readonly TimeSpan s_deadline = TimeSpan.FromMinutes(IsFull ? 15 : 4);

    private string Socket => Path.Combine(Scratch, "socket");

    private string Image => Path.Combine(Scratch, "disk.img");

    [Test]
    public void StorageDaemon_Throttled_LeavesTheMemoryOfTheNextBootAlone()
    {
        using HostDaemon daemon = HostDaemon.Disk(Socket, Image, DiskSize, s_perSecond);
        VmmResult result = ResetAndCheck(Disk, "/dev/vda", "--disk", $"socket={Socket}");
        Assert.That(result.Errors, Does.Contain("may still write to the guest's memory"), "the throttle is in effect");
    }

    [Test]
    public void OwnBackend_OnASlowDisk_LeavesTheMemoryOfTheNextBootAlone()
    {
        using (FileStream file = File.Create(Image))
            file.SetLength(DiskSize);
        HostCommand.Run("modprobe", "loop");
        if (LoopDevice.TryAttach(Image, out LoopDevice? attached) is string reason)
            Assert.Ignore($"no loop device: {reason}");
        using LoopDevice device = attached!;
        using var group = new SlowGroup(Scratch, device.Path, s_readsPerSecond);
        string[] vmm = [.. VmmProcess.Command];
        using var backend = new HostDaemon(
            [Socket], vmm[0], [.. vmm[1..], "backend", "blk", "--socket-path", Socket, "--path", device.Path, "--direct", "--engine", "threads"]);
        group.Add(backend.Id);
        VmmResult result = ResetAndCheck(Disk, "/dev/vda", "--disk", $"socket={Socket}");
        Assert.That(result.Errors, Does.Contain("may still write to the guest's memory"), "the limit is in effect");
    }

    [Test]
    public void Virtiofsd_UnderLoad_LeavesTheMemoryOfTheNextBootAlone()
    {
        string share = Directory.CreateDirectory(Path.Combine(Scratch, "share")).FullName;
        using (FileStream file = File.Create(Path.Combine(share, "file")))
            file.SetLength(DiskSize);
        using HostDaemon daemon = HostDaemon.Virtiofsd(Socket, share);
        ResetAndCheck(Share, "/share/file", "--fs", $"tag=work,socket={Socket}");
        Assert.That(daemon.WaitForEnd(), Is.Zero, "the daemon ends with its connection");
    }

    private VmmResult ResetAndCheck(string prepare, string path, params string[] options)
    {
        (int mib, int seconds, string memory) = IsFull ? (200, 10, "320M") : (64, 3, "192M");
        VmmProcess process = Boot(new LinuxGuest
        {
            Interactive = true,
            Memory = memory,
            Options = options,
            Script = $"stty -echo\n{prepare}resettest {path} {mib} {seconds} {Depth} || exit 1\n",
        });
        for (int reset = 1; reset <= s_resets; reset++)
        {
            process.WaitForOutput($"unchanged={mib}", reset, s_deadline);
            process.Send("reset\n"u8);
            process.WaitForOutput("inflight=", reset, s_deadline);
            TestContext.Progress.WriteLine($"{TestContext.CurrentContext.Test.MethodName}: reset {reset} of {s_resets} at {DateTime.UtcNow:T}");
        }
        process.WaitForOutput($"unchanged={mib}", s_resets + 1, s_deadline);
        process.Send("end\n"u8);
        VmmResult result = process.WaitForEnd(s_deadline);
        TestContext.Out.WriteLine(result.Output);
        TestContext.Out.WriteLine(result.Errors);

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(result.Output, Does.Contain(LinuxGuest.Ended(0)), result.Summary);
        return result;
    }
}
