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

    private static KernelLog Written(string text)
    {
        var log = new KernelLog(null);
        log.Writing.WriteAll(Encoding.UTF8.GetBytes(text), "log");
        log.Writing.Dispose();
        log.WaitForEnd();
        return log;
    }
}
