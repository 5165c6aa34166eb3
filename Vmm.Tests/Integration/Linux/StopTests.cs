using System.Diagnostics;
using NUnit.Framework;
using Tmds.Linux;

namespace Vmm.Tests.Integration.Linux;

/// <summary>The VMM's end at any moment of a boot.</summary>
public class StopTests : LinuxTest
{
    private const int Cycles = 5;

    private static readonly TimeSpan s_stop = TimeSpan.FromSeconds(14);   // RCU and the soft lockup detector wait for 6 s

    private static readonly TimeSpan s_step = TimeSpan.FromSeconds(LinuxHost.IsEmulated ? 0.7 : 0.1);
    private static readonly TimeSpan s_promptly = TimeSpan.FromSeconds(15);

    [Test]
    public void Stop_ForLongerThanItsWatchdogsWait_GuestIsTold()
    {
        VmmProcess process = Boot(new LinuxGuest
        {
            CommandLine = "rcupdate.rcu_cpu_stall_timeout=6",
            Script = """
                echo 3 > /proc/sys/kernel/watchdog_thresh
                (while :; do :; done) &
                echo ready
                sleep 8
                dmesg | grep -i -e 'self-detected stall' -e 'detected stalls' -e 'soft lockup'
                echo end
                """,
        });
        process.EndInput();
        process.WaitForOutput("ready");
        Assert.That(LibC.kill(process.Id, LibC.SIGSTOP), Is.Zero);
        Thread.Sleep(s_stop);
        Assert.That(LibC.kill(process.Id, LibC.SIGCONT), Is.Zero);
        VmmResult result = process.WaitForEnd();

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(result.Output, Does.Contain("ready\nend\n"), result.Summary);
    }

    [Test]
    public void Signal_WhileBooting_EndsPromptlyAndLeavesNothing()
    {
        string socket = Path.Combine(Scratch, "serial.sock");
        var guest = new LinuxGuest { Cpus = 2, Options = ["--serial", $"socket={socket}"], Script = "sleep 1000" };
        for (int i = 1; i <= Cycles; i++)
        {
            VmmProcess process = Boot(guest);
            Assert.That(() => File.Exists(socket), Is.True.After((int)VmmProcess.Deadline.TotalMilliseconds, 10), $"cycle {i}: the socket");
            Assert.That(process.EndsWithin(i * s_step), Is.False, $"cycle {i}: ended by itself");
            long start = Stopwatch.GetTimestamp();
            process.Signal(LibC.SIGTERM);
            VmmResult result = process.WaitForEnd();
            TimeSpan time = Stopwatch.GetElapsedTime(start);

            Assert.That(result, Is.EqualTo(new VmmResult(128 + LibC.SIGTERM, "", "")), $"cycle {i}");
            Assert.That(time, Is.LessThan(s_promptly), $"cycle {i}");
            Assert.That(File.Exists(socket), Is.False, $"cycle {i}: the socket is left");
        }
        Assert.That(ProcFs.ProcessesWithEnvironment(VmmProcess.Mark), Is.Empty, "processes are left");
        Assert.That(Directory.GetFileSystemEntries(Temporary), Is.Empty, "files are left");
    }
}
