using System.Globalization;
using NUnit.Framework;
using Tmds.Linux;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.Confinement;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Tests.Integration.Backends;

/// <summary>What a back-end process can still do once it serves, seen from inside.</summary>
public class ConfinementTests : BackendTest
{
    private const int Eperm = 1, Enosys = 38;

    private string _injector = "";

    [SetUp]
    public void Prepare()
    {
        if (!VmmProcess.IsNative)
            Assert.Ignore("only the native binary is confined: set VMM_BINARY");
        _injector = SystemCallInjector.Build(Scratch);
    }

    [Test]
    public void Process_Confined_HasNoNewPrivilegesAndAFilterInEveryThread()
    {
        VmmProcess process = StartWaiting("rng");
        ConnectFrontEnd().Start();
        foreach (int thread in Threads(process))
        {
            string status = File.ReadAllText($"/proc/{process.Id}/task/{thread}/status");
            Assert.That(status, Does.Contain("NoNewPrivs:\t1\n").And.Contain("Seccomp:\t2\n"), status);
        }
    }

    [TestCase(SystemCallNumber.Openat, "-100", "@/etc/shadow", "0")]
    [TestCase(SystemCallNumber.Open, "@/etc/hostname", "0")]
    [TestCase(SystemCallNumber.Open, "@/tmp/vmm-new-file", "0x42", "0600")]
    [TestCase(SystemCallNumber.Socket, "2", "1", "0")]
    [TestCase(SystemCallNumber.Socket, "1", "1", "0")]
    [TestCase(SystemCallNumber.Socketpair, "1", "1", "0", "0")]
    [TestCase(SystemCallNumber.Mmap, "0", "4096", "7", "0x22", "-1", "0")]
    [TestCase(SystemCallNumber.Clone, "17", "0", "0", "0", "0")]
    [TestCase(SystemCallNumber.Prctl, "4", "1")]
    [TestCase(SystemCallNumber.Tgkill, "1", "1", "0")]
    [TestCase(SystemCallNumber.Ioctl, "0", "0x5401", "0")]
    [TestCase(SystemCallNumber.IoUringSetup, "8", "0")]
    public void Call_ThatARandomSourceHasNoUseFor_FailsAndItServesOn(SystemCallNumber number, params string[] arguments)
    {
        VmmProcess process = StartWaiting("rng");
        FrontEndDriver frontEnd = ConnectFrontEnd();
        FrontEndRing ring = frontEnd.Start();
        foreach (int thread in Threads(process).Where(thread => IsWaiting(process, thread)))
            Assert.That(SystemCallInjector.Call(_injector, thread, (int)number, arguments), Is.EqualTo(-Eperm), $"in {Name(process, thread)}");
        Assert.That(frontEnd.Get(VhostUserRequest.GetFeatures), Is.Not.Zero);
        Assert.That(ring, Is.Not.Null);
    }

    [Test]
    public void Call_Clone3_IsNotThere() => Assert.That(
        SystemCallInjector.Call(_injector, StartWaiting("rng").Id, (int)SystemCallNumber.Clone3, "0", "0"), Is.EqualTo(-Enosys));

    [TestCase(SystemCallNumber.Execve, "@/bin/sh", "0", "0")]
    [TestCase(SystemCallNumber.Ptrace, "16", "1", "0", "0")]
    [TestCase(SystemCallNumber.ProcessVmReadv, "1", "0", "0", "0", "0", "0")]
    public void Call_ThatABreakInGoesOnWith_EndsTheProcess(SystemCallNumber number, params string[] arguments)
    {
        VmmProcess process = StartWaiting("rng");
        Assert.That(SystemCallInjector.Call(_injector, process.Id, (int)number, arguments), Is.Null);
        Assert.That(process.WaitForEnd().ExitCode, Is.EqualTo(128 + 31), "SIGSYS");
    }

    // A process that was started otherwise: a shell and .NET do not tell a death by a signal from the exit status 128+N.
    [Test]
    public void Signal_Confined_TheProcessDiesOfIt()
    {
        using FileDescriptor nothing = FileDescriptor.Open("/dev/null", OpenMode.ReadWrite);
        using ChildProcess process = ChildProcess.Start(VmmProcess.Command[0], ["backend", "rng", "--socket-path", SocketPath], nothing);
        Eventually.True(
            () => File.ReadAllText($"/proc/{process.Id}/syscall").StartsWith($"{(int)SystemCallNumber.Poll} ", StringComparison.Ordinal)
                && File.ReadAllText($"/proc/{process.Id}/status").Contains("Seccomp:\t2\n", StringComparison.Ordinal),
            () => "it does not wait for a front-end");
        Assert.That(LibC.kill(process.Id, LibC.SIGTERM), Is.Zero);
        Assert.That(process.WaitForEnd(30_000));
        Assert.That(process.End, Is.EqualTo("signal 15"));
    }

    [Test]
    public void Unlink_OutsideTheSocketsDirectory_IsRefused()
    {
        string other = Path.Combine(Temporary, "file");
        File.WriteAllText(other, "");
        VmmProcess process = StartWaiting("rng");
        if (Landlock.Version == 0)
            Assert.Ignore("this kernel has no Landlock");
        Assert.That(SystemCallInjector.Call(_injector, process.Id, (int)SystemCallNumber.Unlink, "@/etc/hostname"), Is.Negative);
        Assert.That(SystemCallInjector.Call(_injector, process.Id, (int)SystemCallNumber.Unlink, "@" + SocketPath), Is.Zero);
        Assert.That(File.Exists("/etc/hostname"));
    }

    [Test]
    public void Call_WithTheSandboxOff_Works()
    {
        VmmProcess process = StartWaiting("rng", "--sandbox", "off");
        Assert.That(SystemCallInjector.Call(_injector, process.Id, (int)SystemCallNumber.Openat, "-100", "@/etc/hostname", "0"), Is.Positive);
    }

    [Test]
    public void Vsock_Confined_ConnectsToUnixSocketsOnly()
    {
        VmmProcess process = StartWaiting("vsock", "--uds-path", Path.Combine(Scratch, "vsock"));
        Assert.That(SystemCallInjector.Call(_injector, process.Id, (int)SystemCallNumber.Socket, "1", "1", "0"), Is.Positive);
        Assert.That(SystemCallInjector.Call(_injector, process.Id, (int)SystemCallNumber.Socket, "2", "1", "0"), Is.EqualTo(-Eperm));
    }

    // A back-end that has done all that comes before the first message.
    private VmmProcess StartWaiting(string device, params string[] options)
    {
        VmmProcess process = StartBackend(device, options);
        Eventually.True(
            () => File.ReadAllText($"/proc/{process.Id}/syscall").StartsWith($"{(int)SystemCallNumber.Poll} ", StringComparison.Ordinal),
            () => "it does not wait for a front-end");
        return process;
    }

    private static int[] Threads(VmmProcess process) =>
        [.. Directory.GetDirectories($"/proc/{process.Id}/task").Select(path => int.Parse(Path.GetFileName(path), CultureInfo.InvariantCulture))];

    // Those that are not at work: in a system call that can be used.
    private static bool IsWaiting(VmmProcess process, int thread)
    {
        string call = File.ReadAllText($"/proc/{process.Id}/task/{thread}/syscall");
        return call.Length > 0 && char.IsAsciiDigit(call[0]);
    }

    private static string Name(VmmProcess process, int thread) => File.ReadAllText($"/proc/{process.Id}/task/{thread}/comm").Trim();
}
