using System.Text;
using NUnit.Framework;
using Vmm.Cli;
using Vmm.Cli.Exec;
using Vmm.Guest;
using Vmm.Machine;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Cli.Exec;

public sealed class ExecReportTests
{
    private const string Complaint = "[ 1.0] vmm-agent: module x.ko: Exec format error\n", Panic = "[ 2.0] Kernel panic - not syncing: VFS\n";

    [TestCase(Complaint + Panic, false, false, "the guest's kernel panicked before make had ended: Kernel panic - not syncing: VFS")]
    [TestCase(Complaint, true, false, "the guest's kernel panicked before make had ended")]
    [TestCase(Complaint, false, false, "the guest could not be set up: module x.ko: Exec format error; load it")]
    [TestCase(Complaint, false, true, "the guest powered off before make had ended")]
    [TestCase("", false, false, "the guest powered off before make had ended")]
    public void WhatHappened_Guest_IsToldOfByWhatEndedIt(string text, bool panicked, bool hasStarted, string expected)
    {
        using KernelLog log = LogOf(text);
        var report = new ExecReport(new GuestCommand { Arguments = ["make"] }, false, null, log) { Advice = "load it", HasStarted = hasStarted };

        Assert.That(report.WhatHappened(new MachineEnd(panicked ? MachineEndKind.Panic : MachineEndKind.PowerOff), log), Is.EqualTo(expected));
    }

    // Its back-end here has ended, or the agent has: only the agent's own line tells that somebody in the guest has killed it.
    [TestCase("", "the guest lost the connection with its agent before make had ended")]
    [TestCase("[ 1.0] vmm-agent: killed by signal 9\n", "the guest lost its agent, which somebody in it has killed, before make had ended")]
    public void WhatHappened_ConnectionHasEnded_NobodyIsBlamedWithoutAReason(string text, string expected)
    {
        using KernelLog log = LogOf(text);
        var report = new ExecReport(new GuestCommand { Arguments = ["make"] }, false, null, log) { HasStarted = true };

        Assert.That(report.WhatHappened(new MachineEnd(MachineEndKind.Quit), log), Is.EqualTo(expected));
    }

    [TestCase("[ 1.0] vmm-agent: cannot unmount /mnt: Device or resource busy\n", "vmm: the guest cannot unmount /mnt: Device or resource busy\n")]
    [TestCase("[ 1.0] vmm-agent: cannot unmount /mnt: Device or resource busy\n[ 2.0] vmm-agent: cannot unmount the disk vdb: it is in use\n" + Complaint,
        "vmm: the guest cannot unmount /mnt: Device or resource busy\nvmm: the guest cannot unmount the disk vdb: it is in use\n")]
    [TestCase(Complaint, "")]
    public void Tell_DiskIsStillMounted_IsToldWhateverTheStatus(string text, string errors)
    {
        foreach (CommandEndKind kind in (CommandEndKind[])[CommandEndKind.Killed, CommandEndKind.NotExecuted, CommandEndKind.NotPrepared, CommandEndKind.OutOfMemory, CommandEndKind.OutputLost, CommandEndKind.InputLost])
        {
            using KernelLog others = LogOf(text);
            using var told = new StringWriter();
            new ExecReport(new GuestCommand { Arguments = ["make"] }, false, null, others) { Errors = told, HasStarted = true }.Tell(null, new CommandEnd(kind, 9, "make"));
            Assert.That(told.ToString().Contains("vmm: the guest cannot unmount /mnt", StringComparison.Ordinal), Is.EqualTo(errors.Length > 0), $"{kind}");
        }
        using KernelLog log = LogOf(text);
        using var written = new StringWriter();
        var report = new ExecReport(new GuestCommand { Arguments = ["make"] }, false, null, log) { Errors = written, HasStarted = true };

        Assert.That(report.Tell(null, new CommandEnd(CommandEndKind.Exited)), Is.Zero);
        Assert.That(written.ToString(), Is.EqualTo(errors));
    }

    [TestCase(CommandEndKind.OutOfMemory, 9, 1, 125, "vmm: the guest ran out of memory, and its kernel killed the command: raise --memory\n")]
    [TestCase(CommandEndKind.Killed, 9, 1, 137, "vmm: the guest ran out of memory, and its kernel killed a process: raise --memory\n")]
    [TestCase(CommandEndKind.Killed, 15, 2, 143, "vmm: the guest ran out of memory, and its kernel killed 2 processes: raise --memory\n")]
    [TestCase(CommandEndKind.Killed, 9, 0, 137, "")]
    [TestCase(CommandEndKind.Exited, 3, 1, 3, "vmm: the guest ran out of memory, and its kernel killed a process: raise --memory\n")]
    [TestCase(CommandEndKind.Exited, 0, 1, 0, "")]
    public void Tell_GuestOutOfMemory_IsTheStatusOnlyWhereTheKernelKilledTheCommandItself(int kind, int value, int kills, int status, string errors)
    {
        using var written = new StringWriter();
        var report = new ExecReport(new GuestCommand { Arguments = ["make"] }, false, null, null) { Errors = written };

        Assert.That(report.Tell(null, new CommandEnd((CommandEndKind)kind, value, "", kills)), Is.EqualTo(status));
        Assert.That(written.ToString(), Is.EqualTo(errors));
    }

    [TestCase(true, true, "make took longer than 5 s (--timeout)")]
    [TestCase(false, true, "the guest was not ready within 5 s (--timeout), and make had not started")]
    [TestCase(false, false, "the guest's devices were not ready within 5 s (--timeout), and make had not started")]
    public void Tell_TimeIsOver_SaysWhatTookIt(bool hasStarted, bool hasMachine, string expected)
    {
        using KernelLog log = LogOf("");
        using var written = new StringWriter();
        var report = new ExecReport(new GuestCommand { Arguments = ["make"] }, true, TimeSpan.FromSeconds(5), log) { Errors = written, HasStarted = hasStarted };

        Assert.That(report.Tell(hasMachine ? new MachineEnd(MachineEndKind.Quit) : null, new CommandEnd(CommandEndKind.TimedOut)), Is.EqualTo(ExitCode.ExecTimeout));
        Assert.That(written.ToString(), Is.EqualTo($"vmm: {expected}\n"));
    }

    [Test]
    public void Tell_InputThatCouldNotBeRead_IsAFailure()
    {
        using var written = new StringWriter();
        var report = new ExecReport(new GuestCommand { Arguments = ["cat"] }, false, null, null) { Errors = written, HasStarted = true };

        Assert.That(report.Tell(null, new CommandEnd(CommandEndKind.InputLost, Errnos.Eisdir, "standard input")), Is.EqualTo(ExitCode.ExecFailure));
        Assert.That(written.ToString(), Is.EqualTo("vmm: cannot read standard input, so that cat did not get all of it: Is a directory\n"));
    }

    private static KernelLog LogOf(string text)
    {
        var log = new KernelLog(null);
        log.Writing.WriteAll(Encoding.UTF8.GetBytes(text), "log");
        log.Writing.Dispose();
        log.WaitForEnd();
        return log;
    }
}
