using System.Text;
using NUnit.Framework;
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
        using var log = new KernelLog(null);
        log.Writing.WriteAll(Encoding.UTF8.GetBytes(text), "log");
        log.Writing.Dispose();
        log.WaitForEnd();
        var report = new ExecReport(new GuestCommand { Arguments = ["make"] }, false, null, log) { Advice = "load it", HasStarted = hasStarted };

        Assert.That(report.WhatHappened(new MachineEnd(panicked ? MachineEndKind.Panic : MachineEndKind.PowerOff), log), Is.EqualTo(expected));
    }
}
