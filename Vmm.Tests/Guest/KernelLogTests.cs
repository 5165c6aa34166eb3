using System.Text;
using NUnit.Framework;
using Vmm.Guest;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Guest;

public sealed class KernelLogTests
{
    [Test]
    public void Trouble_LogWithAPanic_BeginsWhereItBegan()
    {
        using KernelLog log = Written("[ 1.0] fine\r\n[ 2.0] BUG: kernel NULL pointer dereference\r\n[ 2.1] Call Trace:\r\n[ 2.2] Kernel panic - not syncing: Fatal exception\r\n");
        Assert.That(log.Trouble(10), Is.EqualTo(new[]
        {
            "[ 2.0] BUG: kernel NULL pointer dereference", "[ 2.1] Call Trace:", "[ 2.2] Kernel panic - not syncing: Fatal exception",
        }));
        Assert.That(log.Panic, Is.EqualTo("Kernel panic - not syncing: Fatal exception"));
    }

    [Test]
    public void Trouble_LogWithout_IsItsLastLines()
    {
        using KernelLog log = Written("one\ntwo\nthree\n");
        Assert.That(log.Trouble(2), Is.EqualTo(new[] { "two", "three" }));
        Assert.That(log.Panic, Is.Null);
    }

    // As kernels before 6.10 begin them, and those that panic of a warning or of a task that hangs.
    [TestCase("[ 2.0] divide error: 0000 [#1] PREEMPT SMP NOPTI")]
    [TestCase("[ 2.0] invalid opcode: 0000 [#1] SMP")]
    [TestCase("[ 2.0] stack segment: 0000 [#2] SMP")]
    [TestCase("[ 2.0] int3: 0000 [#1] SMP")]
    [TestCase("[ 2.0] general protection fault, probably for non-canonical address 0xdead: 0000 [#1] SMP")]
    [TestCase("[ 2.0] Oops: general protection fault, maybe for address 0x0: 0000 [#1] SMP")]
    [TestCase("[ 2.0] WARNING: CPU: 0 PID: 1 at kernel/x.c:1 f+0x1/0x2")]
    [TestCase("[ 2.0] INFO: task sh:12 blocked for more than 120 seconds.")]
    [TestCase("[ 2.0] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:")]
    [TestCase("[ 2.0][    T1] BUG: KASAN: use-after-free")]
    [TestCase("[ 2.0] watchdog: BUG: soft lockup - CPU#0 stuck for 26s!")]
    public void Trouble_FirstLineOfATrace_IsKnown(string line)
    {
        using KernelLog log = Written($"{Lines("fine", 100)}{line}\ntrace\nKernel panic - not syncing: x\n");
        Assert.That(log.Trouble(60), Is.EqualTo(new[] { line, "trace", "Kernel panic - not syncing: x" }));
    }

    [TestCase("[ 2.0] debug: something")]
    [TestCase("[ 2.0] prog[7]: traps: general protection fault ip:7f00 sp:7f00 error:0")]
    [TestCase("[ 2.0] x: information: task done")]
    [TestCase("[ 2.0] list [#a]")]
    public void Trouble_HarmlessLine_IsNone(string line)
    {
        using KernelLog log = Written($"{line}\n{Lines("fine", 100)}Kernel panic - not syncing: x\nafter\n");
        Assert.That(log.Trouble(60), Is.EqualTo(new[] { "Kernel panic - not syncing: x", "after" }));
    }

    [Test]
    public void Trouble_EarlierTroubleThanThePanics_DoesNotHideIt()
    {
        using KernelLog log = Written($"BUG: at boot\n{Lines("fine", 100)}BUG: unable to handle page fault\n#PF: x\nOops: 0002 [#1] SMP\n{Lines("trace", 20)}Kernel panic - not syncing: Fatal exception\n"
            + "Kernel Offset: disabled\n---[ end Kernel panic - not syncing: Fatal exception ]---\n");
        string[] lines = log.Trouble(60);
        Assert.That((lines[0], lines[^1]), Is.EqualTo(("BUG: unable to handle page fault", "---[ end Kernel panic - not syncing: Fatal exception ]---")));
        Assert.That(lines, Has.Length.EqualTo(26));
        Assert.That(log.Panic, Is.EqualTo("Kernel panic - not syncing: Fatal exception"));
    }

    [Test]
    public void Trouble_LongAgoOrLongTrace_HasTheBeginningAndThePanicsOwn()
    {
        using KernelLog log = Written($"BUG: one\n{Lines("trace", 100)}Kernel panic - not syncing: x\n{Lines("panic", 100)}");
        string[] lines = log.Trouble(60);
        Assert.That(lines, Has.Length.EqualTo(60));
        Assert.That((lines[0], lines[29], lines[30], lines[59]), Is.EqualTo(("BUG: one", "trace 28", "Kernel panic - not syncing: x", "panic 28")));
    }

    // As when the time is over: what the kernel has said last was asked for.
    [Test]
    public void Trouble_WithoutAPanic_EndsWithTheLastLines()
    {
        using KernelLog log = Written($"BUG: one\n{Lines("trace", 100)}{Lines("last", 20)}");
        string[] lines = log.Trouble(60);
        Assert.That(lines, Has.Length.EqualTo(60));
        Assert.That((lines[0], lines[39], lines[40], lines[59]), Is.EqualTo(("BUG: one", "trace 38", "last 0", "last 19")));
    }

    [Test]
    public void AgentError_LineOfTheAgent_IsWhatItSays()
    {
        using KernelLog log = Written("[ 1.5] vmm-agent: cannot mount root (virtiofs) on /lower: No such device\n");
        Assert.That(log.AgentError, Is.EqualTo("cannot mount root (virtiofs) on /lower: No such device"));
    }

    [Test]
    public void Lines_WhatATerminalObeys_IsNotPassedOn()
    {
        using KernelLog log = Written("a\x1b[2J\tb\u202ec\n");
        Assert.That(log.Lines, Is.EqualTo(new[] { "a?[2J\tb?c" }));
    }

    [Test]
    public void Lines_OfMuchMore_AreTheLast()
    {
        using KernelLog log = Written(string.Concat(Enumerable.Range(0, 20_000).Select(i => $"line {i}\n")));
        Assert.That(log.Lines[^1], Is.EqualTo("line 19999"));
        Assert.That(log.Lines, Has.Length.InRange(1000, 10_000));
    }

    [Test]
    public void Copy_All_IsWhatWasWritten()
    {
        using var pipe = new Pipe();
        using (var log = new KernelLog(pipe.Writer))
            log.Writing.WriteAll("all of it\n"u8, "log");
        byte[] buffer = new byte[100];
        Assert.That(Encoding.UTF8.GetString(buffer, 0, pipe.Reader.TryRead(buffer)), Is.EqualTo("all of it\n"));
    }

    [Test]
    public void Copy_OfMoreThanTheLimit_IsCutAndSaysSo()
    {
        using var pipe = new Pipe();
        using (var log = new KernelLog(pipe.Writer, limit: 6000))
        {
            log.Writing.WriteAll(Enumerable.Repeat((byte)'a', 5000).ToArray(), "log");
            log.Writing.WriteAll(Enumerable.Repeat((byte)'b', 20_000).ToArray(), "log");
            log.Writing.Dispose();
            log.WaitForEnd();
            Assert.That(log.Lines, Has.Length.EqualTo(1));
            Assert.That(log.Lines[0], Has.Length.EqualTo(25_000), "what is kept of it is another matter");
        }
        byte[] buffer = new byte[30_000];
        Assert.That(Encoding.UTF8.GetString(buffer, 0, pipe.Reader.TryRead(buffer)),
            Is.EqualTo(new string('a', 5000) + new string('b', 1000) + "\nvmm: the kernel has said more than 0 MiB: the rest is left out\n"));
    }

    [TestCase("/dev/full", Errnos.Enospc)]
    [TestCase("/dev/null", 0)]
    public void CopyError_FileThatTakesNothing_IsWhy(string path, int error)
    {
        using var log = new KernelLog(FileDescriptor.Open(path, OpenMode.ReadWrite));
        log.Writing.WriteAll("a line\n"u8, "log");
        log.Writing.Dispose();
        log.WaitForEnd();

        Assert.That(log.CopyError, Is.EqualTo(error));
        Assert.That(log.Lines, Is.EqualTo(new[] { "a line" }));
    }

    private static string Lines(string word, int count) => string.Concat(Enumerable.Range(0, count).Select(i => $"{word} {i}\n"));

    private static KernelLog Written(string text)
    {
        var log = new KernelLog(null);
        log.Writing.WriteAll(Encoding.UTF8.GetBytes(text), "log");
        log.Writing.Dispose();
        log.WaitForEnd();
        return log;
    }
}
