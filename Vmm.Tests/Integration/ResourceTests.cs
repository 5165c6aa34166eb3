using NUnit.Framework;

namespace Vmm.Tests.Integration;

/// <summary>What many starts and resets leave behind: nothing.</summary>
public class ResourceTests : KvmTest
{
    private const int Cycles = 100;
    private const long Slack = 1 << 20;
    private const int SettleMilliseconds = 5000;
    private const int PollMilliseconds = 50;

    [Test]
    public void Reset_ManyInOneProcess_LeaveNothingBehind()
    {
        const int warmUp = 5;
        VmmProcess process = Start("reset", "--cmdline", "acpi", "--cpus", "2");
        Reset(process, 1, warmUp);
        string[] descriptors = ProcFs.Descriptors(process.Id);
        string[] mappings = ProcFs.GuestMappings(process.Id);
        int threads = ProcFs.Threads(process.Id);
        long memory = ProcFs.OwnMemory(process.Id);

        Reset(process, warmUp, warmUp + Cycles);

        // The runtime opens and maps things of its own now and then, but not to keep them.
        Assert.That(() => ProcFs.Descriptors(process.Id), Is.SubsetOf(descriptors).After(SettleMilliseconds, PollMilliseconds));
        Assert.That(() => ProcFs.GuestMappings(process.Id), Is.SubsetOf(mappings).After(SettleMilliseconds, PollMilliseconds));
        // On a busy machine the runtime's pool may have started one thread more, which ends when it has had nothing to do for 20 s.
        Assert.That(() => ProcFs.Threads(process.Id), Is.LessThanOrEqualTo(threads).After(6 * SettleMilliseconds, PollMilliseconds));
        if (VmmProcess.IsNative)   // the JIT and its code need memory when they like
            Assert.That(ProcFs.OwnMemory(process.Id), Is.LessThan(memory + Slack));
        process.Send("p"u8);
        Assert.That(process.WaitForEnd().ExitCode, Is.Zero);
    }

    [Test]
    public void Run_ManyTimes_LeavesNoProcessAndNoFile()
    {
        string socket = Path.Combine(Scratch, "serial.sock");
        string[] shared = Directory.GetFileSystemEntries("/dev/shm");
        for (int i = 0; i < Cycles; i++)
        {
            VmmResult result = Run("hello", "--cpus", "2", "--serial", $"socket={socket}");
            Assert.That(result, Is.EqualTo(new VmmResult(0, "", "")), $"run {i}");
            Assert.That(File.Exists(socket), Is.False, $"run {i} left its socket");
        }

        Assert.That(ProcFs.ProcessesWithEnvironment(VmmProcess.Mark), Is.Empty, "processes");
        Assert.That(Directory.GetFileSystemEntries("/dev/shm"), Is.SubsetOf(shared));
        Assert.That(Directory.GetFileSystemEntries(Temporary), Is.Empty);
    }

    // Lets a machine that has started `from` times start until it has `to` times.
    private static void Reset(VmmProcess process, int from, int to)
    {
        process.WaitForOutput("start, memory is zero, bss is zero", from);
        for (int starts = from + 1; starts <= to; starts++)
        {
            process.Send("r"u8);
            process.WaitForOutput("serial port is reset\n", starts);
        }
    }
}
