using NUnit.Framework;

namespace Vmm.Tests.Integration.Linux.Devices;

/// <summary>A guest that is reset again and again while it reads and writes: nobody writes to the memory of the next boot.</summary>
/// <remarks>The guest fills memory with a pattern after each boot, sees that it stays as it is, and then uses that memory for
/// 32 requests at a time, with which in flight it resets itself (firmware/guest/resettest.c). <see cref="LateWriteTests"/> does so with more
/// back-ends and far more often, without Linux.</remarks>
public class ResetTests : DeviceTest
{
    private const int Depth = 32;
    private const long DiskSize = 32 << 20;
    private const string Disk = "modprobe -a virtio_mmio virtio_blk\nuntil [ -b /dev/vda ]; do sleep 0.1; done\n";
    private const string Share = "modprobe -a virtio_mmio virtiofs\nmkdir /share\nmount -t virtiofs work /share || exit 1\n";

    private const int PerSecond = 3;    // so few that 32 requests take longer than a back-end may take to stop
    private const int Mib = 64;
    private const int QuietSeconds = 3;

    private static readonly int s_resets = IsFull ? 5 : 1;

    // In the host that is emulated a boot takes 5 to 15 s, and the end of the requests of the boot before it as long.
    private static readonly TimeSpan s_deadline = TimeSpan.FromMinutes(4);

    private string Socket => Path.Combine(Scratch, "socket");

    private string Image => Path.Combine(Scratch, "disk.img");

    [Test]
    public void StorageDaemon_Throttled_LeavesTheMemoryOfTheNextBootAlone()
    {
        using HostDaemon daemon = HostDaemon.Disk(Socket, Image, DiskSize, PerSecond);
        VmmResult result = ResetAndCheck(Disk, "/dev/vda", "--disk", $"socket={Socket}");
        Assert.That(result.Errors, Does.Contain("may still write to the guest's memory"), "the throttle is in effect");
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
        VmmProcess process = Boot(new LinuxGuest
        {
            Interactive = true,
            Memory = "192M",
            Options = options,
            Script = $"stty -echo\n{prepare}resettest {path} {Mib} {QuietSeconds} {Depth} || exit 1\n",
        });
        for (int reset = 1; reset <= s_resets; reset++)
        {
            process.WaitForOutput($"unchanged={Mib}", reset, s_deadline);
            process.Send("reset\n"u8);
            process.WaitForOutput("inflight=", reset, s_deadline);
            TestContext.Progress.WriteLine($"{TestContext.CurrentContext.Test.MethodName}: reset {reset} of {s_resets} at {DateTime.UtcNow:T}");
        }
        process.WaitForOutput($"unchanged={Mib}", s_resets + 1, s_deadline);
        process.Send("end\n"u8);
        VmmResult result = process.WaitForEnd(s_deadline);
        TestContext.Out.WriteLine(result.Output);
        TestContext.Out.WriteLine(result.Errors);

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(result.Output, Does.Contain(LinuxGuest.Ended(0)), result.Summary);
        return result;
    }
}
