using NUnit.Framework;
using Vmm.Tests.Integration.Linux.Devices;

namespace Vmm.Tests.Integration;

/// <summary>A guest that is reset again and again while its device works on 32 requests: nobody writes to the memory of the next start.</summary>
/// <remarks>The guest is firmware/payloads/latewrite.c. The devices are slow. Those that do 20 requests a second have done all of them before
/// the front-end's patience ends (5 s), and the guest keeps its memory. The others have not: the guest gets other memory. The guests of a
/// test are reset at the same time, because most of it is waiting.</remarks>
public class LateWriteTests : KvmTest
{
    private const int Quick = 20;
    private const int Slow = 2;
    private const int SlowForThreads = 1;   // our engine by threads has 8 requests in flight, and leaves the others in the ring
    private const long Size = 4L << 30;
    private const string OtherMemory = "the guest gets other memory";

    private static readonly int s_resets = IsFull ? 50 : 1;

    // A single reset must meet requests that do not end. When there are more, only some need to be late, and those of each start must end for the next.
    private static readonly int s_slowSize = IsFull ? 0 : 4096;
    private static readonly string s_isAtWork = IsFull ? "moved\n" : "working\n";
    private static readonly TimeSpan s_toTakeRequests = TimeSpan.FromSeconds(1);

    private static readonly TimeSpan s_quiet = TimeSpan.FromSeconds(IsFull ? 10 : 4);

    [Test]
    public void StorageDaemon_ResetUnderLoad_LeavesTheMemoryOfTheNextStartAlone()
    {
        Require("qemu-storage-daemon", "qemu-system-common");
        ResetAndCheck(OnStorageDaemon(Quick, false), OnStorageDaemon(Slow, true));
    }

    [Test]
    public void OwnBackend_ResetUnderLoad_LeavesTheMemoryOfTheNextStartAlone()
    {
        Require("qemu-storage-daemon", "qemu-system-common");
        ResetAndCheck(
            OnOwnBackend("threads", Quick, false), OnOwnBackend("threads", SlowForThreads, true),
            OnOwnBackend("io_uring", Quick, false), OnOwnBackend("io_uring", Slow, true));
    }

    [Test]
    public void Virtiofsd_ResetUnderLoad_LeavesTheMemoryOfTheNextStartAlone()
    {
        Require("qemu-storage-daemon", "qemu-system-common");
        string daemon = $",daemon={Require("/usr/lib/qemu/virtiofsd", "qemu-system-common")},sandbox=chroot";
        ResetAndCheck(OnDirectory(Quick, false, daemon), OnDirectory(Slow, true, daemon));
    }

    [Test]
    public void OwnDaemon_ResetUnderLoad_LeavesTheMemoryOfTheNextStartAlone()
    {
        Require("qemu-storage-daemon", "qemu-system-common");
        ResetAndCheck(OnDirectory(Quick, false), OnDirectory(Slow, true));
    }

    private Guest OnStorageDaemon(int perSecond, bool isTooSlow)
    {
        string directory = MakeDirectory(perSecond), socket = Path.Combine(directory, "socket");
        Keep(HostDaemon.Disk(socket, Path.Combine(directory, "disk.img"), Size, perSecond, isTooSlow ? s_slowSize : 0));
        return Boot($"{perSecond} a second", isTooSlow, null, "--disk", $"socket={socket}");
    }

    private Guest OnOwnBackend(string engine, int perSecond, bool isTooSlow)
    {
        string directory = MakeDirectory(engine, perSecond), socket = Path.Combine(directory, "socket");
        SlowFile file = Keep(new SlowFile(Path.Combine(directory, "disk.img"), Size, perSecond, isTooSlow ? s_slowSize : 0));
        string[] vmm = [.. VmmProcess.Command];
        Keep(new HostDaemon(
            [socket], vmm[0], [.. vmm[1..], "backend", "blk", "--socket-path", socket, "--path", file.Path, "--direct", "--engine", engine]));
        return Boot($"{engine}, {perSecond} a second", isTooSlow, file, "--disk", $"socket={socket}");
    }

    private Guest OnDirectory(int perSecond, bool isTooSlow, string daemon = "")
    {
        string share = MakeDirectory(perSecond);
        SlowFile file = Keep(new SlowFile(Path.Combine(share, "file"), Size, perSecond, isTooSlow ? s_slowSize : 0));
        return Boot($"{perSecond} a second", isTooSlow, file, "--fs", $"tag=work,source={share}{daemon}");
    }

    private string MakeDirectory(params object[] names) => Directory.CreateDirectory(Path.Combine(Scratch, string.Join('-', names))).FullName;

    private Guest Boot(string name, bool isTooSlow, SlowFile? file, params string[] options) =>
        new(name, isTooSlow, file, Start("latewrite", ["--memory", "320M", "--cmdline", "mib=200", .. options]));

    private static void ResetAndCheck(params Guest[] guests)
    {
        Array.ForEach(guests, guest => guest.Process.WaitForOutput("filled\n"));
        for (int reset = 1; reset <= s_resets; reset++)
        {
            foreach (Guest guest in guests)
                guest.Process.Send("w"u8);
            Array.ForEach(guests, guest => guest.Process.WaitForOutput(s_isAtWork, reset));
            Thread.Sleep(s_toTakeRequests);
            foreach (Guest guest in guests)
            {
                Thread.Sleep(TestContext.CurrentContext.Random.Next(500));      // a reset at any moment
                guest.Process.Send("."u8);
            }
            Array.ForEach(guests, guest => guest.Process.WaitForOutput("filled\n", reset + 1));
            Thread.Sleep(s_quiet);                                              // in which somebody might write
            foreach (Guest guest in guests)
            {
                guest.Process.Send("c"u8);
                guest.Process.WaitForOutput("changed", reset);
                Assert.That(guest.Process.Output.Split('\n').Where(line => !IsExpected(line)), Is.Empty, $"{guest.Name}, reset {reset}: {guest.Process.Errors}");
            }
        }
        foreach (Guest guest in guests)
        {
            guest.File?.Dispose();  // else the end of the guest or of the back-end waits for requests that are under way
            guest.Process.Send("q"u8);
            VmmResult result = guest.Process.WaitForEnd();
            TestContext.Out.WriteLine($"{guest.Name}:\n{result.Output}{result.Errors}");
            Assert.That(result.ExitCode, Is.Zero, result.Summary);
            Assert.That(result.Errors, guest.IsTooSlow ? Does.Contain(OtherMemory) : Does.Not.Contain(OtherMemory), guest.Name);
        }
    }

    private static bool IsExpected(string line) =>
        line is "" or "zero" or "filled" or "working" or "moved" or "unchanged" || line.StartsWith("done 0x", StringComparison.Ordinal);

    /// <summary>A guest on a device that cannot do 32 requests within the front-end's patience, or can.</summary>
    private sealed record Guest(string Name, bool IsTooSlow, SlowFile? File, VmmProcess Process);
}
