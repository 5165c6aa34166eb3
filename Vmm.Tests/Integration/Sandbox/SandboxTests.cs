using System.Diagnostics;
using NUnit.Framework;
using Tmds.Linux;
using Vmm.Tests.Fakes;
using Vmm.Tests.Integration.Backends;
using Vmm.Tests.Integration.Linux;
using Vmm.Tests.Integration.Linux.Devices;
using Vmm.Vhost.Native.Confinement;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Tests.Integration.Sandbox;

/// <summary>What <c>vmm run</c> and <c>vmm exec</c> can still do while their guest runs, seen from inside: on each of its threads, as whoever takes it over would.</summary>
[Category("Confinement")]
public class SandboxTests : KvmTest
{
    private const int Eperm = 1, Ebadf = 9, Eacces = 13, Enosys = 38;
    private const int TapNumber = 94;

    // Machines whose VMM holds different descriptors, and may do different things.
    internal static readonly string[] Kinds = ["plain", "tap", "vsock", "disk", "socket", "server", "exec"];

    private string _injector = "";

    // On a host that can have vhost and taps none of these tests is skipped.
    [OneTimeSetUp]
    public void LoadModules()
    {
        if (Environment.IsPrivilegedProcess && LinuxHost.WhyNoLinux() is null)
            HostCommand.Run("modprobe", "-a", "vhost_net", "vhost_vsock", "tun");
    }

    [SetUp]
    public void Prepare()
    {
        if (!VmmProcess.IsNative)
            Assert.Ignore("only the native binary is confined: set VMM_BINARY");
        _injector = SystemCallInjector.Build();
    }

    [TestCaseSource(typeof(SandboxTests), nameof(Kinds))]
    public void Threads_HaveAFilterAndNoPrivileges(string kind)
    {
        VmmProcess process = StartRunning(kind);
        int[] threads = ProcessThreads.Of(process.Id);
        foreach (int thread in threads)
        {
            bool isVcpu = ProcessThreads.Name(process.Id, thread).StartsWith("vcpu", StringComparison.Ordinal);
            Assert.That(ProcessThreads.Status(process.Id, thread), Does.Contain("NoNewPrivs:\t1\n").And.Contain("Seccomp:\t2\n")
                .And.Contain($"Seccomp_filters:\t{(isVcpu ? 2 : 1)}\n").And.Contain("CapPrm:\t0000000000000000\n").And.Contain("CapEff:\t0000000000000000\n")
                .And.Contain("CapInh:\t0000000000000000\n").And.Contain("CapAmb:\t0000000000000000\n"));
        }
        string[] names = [.. threads.Select(thread => ProcessThreads.Name(process.Id, thread))];
        Assert.That(names, Has.Member("vcpu0").And.Member("vcpu1").And.No.Member("starter"));
        Assert.That(names.Length, Is.GreaterThanOrEqualTo(6), "the main one, the runtime's two, two vCPUs', the console's");
        if (kind == "exec")
            Assert.That(names, Has.Member("agent").And.Member("kernel log"));
    }

    [TestCaseSource(typeof(SandboxTests), nameof(Kinds))]
    public void Escapes_OnEveryThread_AreRefusedAndTheGuestRunsOn(string kind)
    {
        VmmProcess process = StartRunning(kind);
        // And VMs of another type than the machine's.
        InjectedCall[] calls = [.. EscapeAttempts.Possible, .. EscapeAttempts.Others, new("ioctl", "0", "0xAE01", "1"), new("ioctl", "0", "0xAE01", "0x100000000")];
        // What a back-end in another process takes; a socket pair of its own, and whether a process is there, reach nothing.
        if (kind is "disk" or "socket" or "server" or "exec")
            calls = [.. calls.Where(call => call is not { Name: "socketpair" or "pidfd_open" } and not { Name: "getsockopt", Arguments: [_, _, "17", ..] })];
        Assert.That(calls, Has.Length.GreaterThan(100));
        var attacked = new List<string>();
        foreach (int thread in ProcessThreads.Of(process.Id).Where(thread => ProcessThreads.WaitsSoon(process.Id, thread)))
        {
            string name = ProcessThreads.Name(process.Id, thread);
            long?[] results = SystemCallInjector.Calls(_injector, thread, calls);
            for (int i = 0; i < calls.Length; i++)
                Assert.That(results[i], Is.EqualTo(-Eperm).Or.EqualTo(long.MinValue), $"{calls[i]} in {name}");
            Assert.That(SystemCallInjector.Call(_injector, thread, "clone3", "0", "0"), Is.EqualTo(-Enosys));
            attacked.Add(name);
        }
        Assert.That(attacked, Has.Member("vcpu0").And.Member("vcpu1").And.Member(ProcessThreads.Name(process.Id, process.Id)));
        if (kind != "plain")
            Assert.That(attacked, Has.Member("device events"));
        if (kind == "exec")
            Assert.That(attacked, Has.Member("agent").And.Member("kernel log"));
        Assert.That(attacked, Has.Count.GreaterThanOrEqualTo(5));
        End(process, kind);
    }

    // By itself a vCPU's thread makes no VM, no thread, no memory that others could map, and accepts no connection. That keeps a mistake small. It is no wall: the threads
    // have one memory, and whoever controls one of them can have another one do it.
    [TestCaseSource(typeof(SandboxTests), nameof(Kinds))]
    public void Vcpu_WhatOtherThreadsDo_IsRefused(string kind)
    {
        VmmProcess process = StartRunning(kind);
        int vcpu = ProcessThreads.Of(process.Id).First(thread => ProcessThreads.Name(process.Id, thread) == "vcpu0");
        InjectedCall[] calls =
        [
            new("clone", "0x3d0f00", "0", "0", "0", "0"), new("accept4", "0", "0", "0", "0"), new("memfd_create", "@a", "0"), new("eventfd2", "0", "0"),
            new("epoll_create1", "0"), new("timerfd_create", "1", "0"), new("prctl", "15", "@a"), new("ftruncate", "0", "0"), new("pread64", "0", "0", "0", "0"),
            new("fcntl", "0", "2", "1"), new("kill", "0", "20"), new("ioctl", "0", "0x5402", "0"), new("ioctl", "0", "0xAE01", "0"), new("ioctl", "0", "0xAE41", "0"),
            new("ioctl", "0", "0x4020AE46", "0"), new("ioctl", "0", "0x4020AE76", "0"), new("ioctl", "0", "0x4068AEA3", "0"), new("socketpair", "1", "1", "0", "0"),
            new("pidfd_open", "1", "0"), new("socket", "1", "1", "0"), new("connect", "0", "0", "0"), new("dup2", "0", "1"),
        ];
        long?[] results = SystemCallInjector.Calls(_injector, vcpu, calls);
        for (int i = 0; i < calls.Length; i++)
            Assert.That(results[i], Is.EqualTo(-Eperm), $"{calls[i]}");
        // What a packed ring's log says is read by the vCPU that resets the device.
        long? read = SystemCallInjector.Call(_injector, vcpu, "preadv2", "-1", "0", "0", "0", "0", "0");
        Assert.That(read, Is.EqualTo(kind is "disk" or "socket" or "server" or "exec" ? -Ebadf : -Eperm));
        if (kind == "plain")
            Assert.That(SystemCallInjector.Calls(_injector, vcpu, [new("sendmsg", "0", "0", "0"), new("recvmsg", "0", "0", "0")]), Is.All.EqualTo(-Eperm));
        End(process, kind);
    }

    // On each descriptor: what the table lists, and nothing else.
    [TestCaseSource(typeof(SandboxTests), nameof(Kinds))]
    public void Requests_OnEveryDescriptor_AreRefused(string kind)
    {
        VmmProcess process = StartRunning(kind);
        string[] descriptors = [.. Directory.GetFiles($"/proc/{process.Id}/fd").Select(path => Path.GetFileName(path)!)];
        InjectedCall[] calls =
        [
            .. from descriptor in descriptors
               from request in EscapeAttempts.Requests.Where(request => request is not ("0x5401" or "0xAE01"))    // the terminal's settings, and what the VMM is for
               select new InjectedCall("ioctl", descriptor, request, "0"),
            .. from descriptor in descriptors select new InjectedCall("connect", descriptor, "%0200138900000000", "16"),
        ];
        foreach (InjectedCall[] some in calls.Chunk(1000))
        {
            long?[] results = SystemCallInjector.Calls(_injector, process.Id, some);
            for (int i = 0; i < some.Length; i++)
                Assert.That(results[i], Is.EqualTo(-Eperm), $"{some[i]}");
        }
    }

    [TestCaseSource(typeof(SandboxTests), nameof(Kinds))]
    public void Descriptors_AreOfTheMachineOnly(string kind)
    {
        VmmProcess process = StartRunning(kind);
        foreach (string path in Directory.GetFiles($"/proc/{process.Id}/fd").Where(path => Path.GetFileName(path) is not ("0" or "1" or "2")))
        {
            string target = new FileInfo(path).LinkTarget!;
            Assert.That(Directory.Exists(target), Is.False, $"{path} is {target}");
            Assert.That(target, Does.Not.StartWith("/proc").And.Not.StartWith("/sys").And.Not.StartWith("/etc").And.Not.Contain("landlock"));
            if (target.StartsWith("/dev", StringComparison.Ordinal))
                Assert.That(target, Is.EqualTo("/dev/kvm").Or.EqualTo("/dev/urandom").Or.EqualTo("/dev/null").Or.StartsWith("/dev/vhost-").Or.EqualTo("/dev/net/tun"));
        }
    }

    [TestCaseSource(typeof(EscapeAttempts), nameof(EscapeAttempts.Deadly))]
    public void Call_ThatABreakInGoesOnWith_EndsTheProcess(InjectedCall call)
    {
        foreach ((string kind, string name) in ((string, string)[])[("plain", "main"), ("plain", "vcpu0"), ("exec", "main"), ("exec", "vcpu0")])
        {
            VmmProcess process = StartRunning(kind);
            int thread = name == "main" ? process.Id : ProcessThreads.Of(process.Id).First(thread => ProcessThreads.Name(process.Id, thread) == name);
            long? result = SystemCallInjector.Call(_injector, thread, call.Name, call.Arguments);
            if (result == long.MinValue)
                Assert.Ignore($"the C library's headers here do not know {call.Name}");
            Assert.That(result, Is.Null, $"{call} in {name} of {kind}");
            Assert.That(process.WaitForEnd().ExitCode, Is.EqualTo(128 + 31), "SIGSYS");
        }
    }

    // Landlock and capabilities alone, where a kernel did not filter calls.
    [TestCase("plain")]
    [TestCase("disk")]
    [TestCase("exec")]
    public void Files_WithoutTheFilter_AreOutOfReachOnEveryThread(string kind)
    {
        if (Landlock.Version == 0)
            Assert.Ignore("this kernel has no Landlock");
        string file = Path.Combine(Scratch, "file");
        File.WriteAllText(file, "");
        int process = Keep(new UnfilteredProcess(_injector, [VmmProcess.Command[0], .. CommandOf(kind, kind == "exec" ? ["--dmesg", $"{Scratch}/console"] : ["--serial", $"file={Scratch}/console"])])).Id;
        Eventually.True(() => File.Exists($"{Scratch}/console") && File.ReadAllText($"{Scratch}/console").Contains("ready", StringComparison.Ordinal), () => "the guest does not run");
        InjectedCall[] calls =
        [
            new("openat", "-100", "@/etc/hostname", "0"), new("openat", "-100", $"@{file}", "1"), new("openat", "-100", "@/dev/null", "2"),
            new("open", "@/", "0x10000"), new("creat", $"@{file}2", "0600"), new("unlink", $"@{file}"), new("rename", $"@{file}", $"@{file}2"),
            new("mkdir", $"@{file}2", "0700"), new("rmdir", $"@{Scratch}"), new("execve", "@/bin/true", "0", "0"),
        ];
        int attacked = 0;
        // A vCPU's thread has a filter of its own, which was put in force.
        foreach (int thread in ProcessThreads.Of(process).Where(thread =>
            !ProcessThreads.Name(process, thread).StartsWith("vcpu", StringComparison.Ordinal) && ProcessThreads.WaitsSoon(process, thread)))
        {
            long?[] results = SystemCallInjector.Calls(_injector, thread, calls);
            for (int i = 0; i < calls.Length; i++)
                Assert.That(results[i], Is.EqualTo(-Eacces), $"{calls[i]} in {ProcessThreads.Name(process, thread)}");
            Assert.That(
                SystemCallInjector.Calls(_injector, thread, [new("fchown", "0", "65534", "65534"), new("sethostname", "@x", "1"), new("chroot", "@/")]),
                Is.All.EqualTo(-Eperm), $"capabilities in {ProcessThreads.Name(process, thread)}");
            attacked++;
        }
        Assert.That(attacked, Is.GreaterThanOrEqualTo(4), "the main one, the runtime's, the console's");
    }

    [TestCase("plain")]
    [TestCase("exec")]
    public void Off_NothingIsGivenUp(string kind)
    {
        VmmProcess process = StartRunning(kind, "--sandbox", "off");
        Assert.That(ProcessThreads.Status(process.Id, process.Id), Does.Contain("NoNewPrivs:\t0\n").And.Contain("Seccomp:\t0\n"));
        End(process, kind);
        Assert.That(Directory.GetFileSystemEntries(Temporary), Is.Empty);
    }

    [Test]
    public void User_AndRoot_AreThoseOfEveryThread()
    {
        if (!Environment.IsPrivilegedProcess)
            Assert.Ignore("only root can become another user");
        string root = Directory.CreateDirectory(Path.Combine(Scratch, "root")).FullName;
        VmmProcess process = StartRunning("disk", "--user", "54321:54322", "--chroot", root);
        foreach (int thread in ProcessThreads.Of(process.Id))
        {
            Assert.That(ProcessThreads.Status(process.Id, thread), Does.Contain("Uid:\t54321\t54321\t54321\t54321\n")
                .And.Contain("Gid:\t54322\t54322\t54322\t54322\n").And.Match("\nGroups:\\s*\n"));
        }
        Assert.That(new FileInfo($"/proc/{process.Id}/root").LinkTarget, Is.EqualTo(root));
        Assert.That(LibC.kill(Started("backend"), LibC.SIGKILL), Is.Zero);
        process.WaitForErrors("the back-end is back");
        PressPowerButton(process);
        Assert.That(Directory.GetFileSystemEntries(Temporary), Is.Empty);
    }

    [Test]
    public void User_NotRoot_IsRefused()
    {
        string command = string.Join(' ', VmmProcess.Command);
        if (!Environment.IsPrivilegedProcess)
            Assert.Ignore("this test becomes another user");
        using Process shell = Process.Start(new ProcessStartInfo("/bin/sh", ["-c",
            $"cp {command} {Payloads.Path("hello")} {Temporary} && chmod -R a+rX {Scratch} && cd {Temporary} && exec setpriv --reuid=54321 --regid=$(stat -c %g /dev/kvm) --clear-groups ./vmm run --kernel hello.elf --user 54322:1 2>&1"])
        {
            RedirectStandardOutput = true,
        })!;
        string output = shell.StandardOutput.ReadToEnd();
        shell.WaitForExit();
        Assert.That((shell.ExitCode, output), Is.EqualTo((1, "vmm: --user: needs root, and the native binary: leave it out, or start as root\n")));
    }

    // /dev/kvm by its group, and no right besides.
    [Test]
    public void Guest_ByAUserOfTheGroup_Runs()
    {
        if (!Environment.IsPrivilegedProcess)
            Assert.Ignore("this test becomes another user");
        LinuxHost.GiveKvmToItsGroup();
        string command = string.Join(' ', VmmProcess.Command);
        using Process shell = Process.Start(new ProcessStartInfo("/bin/sh", ["-c",
            $"cp {command} {Payloads.Path("hello")} {Temporary} && chmod -R a+rX {Scratch} && cd {Temporary} && exec setpriv --reuid=54321 --regid=$(stat -c %g /dev/kvm) --clear-groups ./vmm run --kernel hello.elf 2>&1 < /dev/null"])
        {
            RedirectStandardOutput = true,
        })!;
        string output = shell.StandardOutput.ReadToEnd();
        shell.WaitForExit();
        Assert.That((shell.ExitCode, output), Is.EqualTo((0, "hello from the guest\n")));
    }

    // The limit that a thread of KVM's own meets is another one for each kernel: each of these either runs the guest or says what is missing.
    [Test]
    public void Guest_OfAUserWhoMayHaveFewThreads_RunsOrSaysWhy()
    {
        if (!Environment.IsPrivilegedProcess)
            Assert.Ignore("this test becomes another user");
        LinuxHost.GiveKvmToItsGroup();
        string command = string.Join(' ', VmmProcess.Command);
        HostCommand.Run("/bin/sh", "-c", $"cp {command} {Payloads.Path("hello")} {Temporary} && chmod -R a+rX {Scratch}");
        for (int threads = 3; threads <= 12; threads++)
        {
            (int status, string output) = HostCommand.TryRun("/bin/sh", "-c",
                $"cd {Temporary} && exec setpriv --reuid=54329 --regid=$(stat -c %g /dev/kvm) --clear-groups prlimit --nproc={threads} ./vmm run --kernel hello.elf --sandbox off < /dev/null");
            Assert.That(status == 0 ? output == "hello from the guest\n" : status == 1 && output.StartsWith("vmm: ", StringComparison.Ordinal), $"{threads} threads: status {status}\n{output}");
        }
    }

    [TestCase("disk", 3, Description = "the VMM, its spawner and the back-end")]
    [TestCase("exec", 4, Description = "another back-end")]
    public void Spawner_VmmKilled_EndsAndRemovesItsSockets(string kind, int processes)
    {
        VmmProcess process = StartRunning(kind);
        Assert.That(ProcFs.ProcessesWithEnvironment(VmmProcess.Mark), Has.Length.EqualTo(processes));
        process.Signal(LibC.SIGKILL);
        process.WaitForEnd();
        Eventually.True(() => ProcFs.ProcessesWithEnvironment(VmmProcess.Mark).Length == 0, () => "processes are left");
        Assert.That(Directory.GetFileSystemEntries(Temporary), Is.Empty);
    }

    // Nobody reads a pipe of its own.
    [Test]
    public void Spawner_ItsErrors_GoWhereThoseOfTheVmmGo()
    {
        VmmProcess process = StartRunning("disk");
        int spawner = Started("spawner");
        foreach (int number in (int[])[1, 2])
            Assert.That(new FileInfo($"/proc/{spawner}/fd/{number}").LinkTarget, Is.EqualTo(new FileInfo($"/proc/{process.Id}/fd/2").LinkTarget));
        PressPowerButton(process);
    }

    [TestCase("disk", "blk")]
    [TestCase("exec", "fs")]
    [TestCase("exec", "vsock")]
    public void Backend_Killed_IsStartedAgainByTheSpawner(string kind, string device)
    {
        VmmProcess process = StartRunning(kind, "--log-level", "info");
        int backend = Started("backend", device);
        Assert.That(LibC.kill(backend, LibC.SIGKILL), Is.Zero);
        process.WaitForErrors("ended with signal 9");
        process.WaitForErrors("the back-end is back");
        Assert.That(Started("backend", device), Is.Not.EqualTo(backend));
        End(process, kind);
        Assert.That(Directory.GetFileSystemEntries(Temporary), Is.Empty);
    }

    [Test]
    public void Socket_BackendThatComesBack_IsConnectedToAgain()
    {
        VmmProcess process = StartRunning("socket", out FakeBackend backend, "--log-level", "info");
        int connections = backend.Connections;
        backend.Kill();
        Eventually.True(() => backend.Connections > connections, () => $"it is not connected to again: {process.Errors}");
        PressPowerButton(process);
    }

    // What a guest's driver does, on a vCPU's thread, reaches a back-end: features, memory, rings, and the reset at the end.
    [Test]
    public void Driver_OfAGuest_SetsUpItsDevice()
    {
        FakeBackend backend = Keep(new FakeBackend(Path.Combine(Scratch, "peer")) { Features = FakeBackend.DefaultFeatures | 4, Config = new byte[8] }.Start());
        VmmProcess process = Start("virtio", "--vhost-user", $"type=rng,socket={Path.Combine(Scratch, "peer")}");
        process.WaitForOutput(", status 0xf\n");
        Eventually.True(() => backend.Heard.Any(said => said.Request == VhostUserRequest.SetVringKick), () => $"no ring was started: {process.Errors}");
        Assert.That((backend.Connections, process.Errors), Is.EqualTo((1, "")));
        process.Signal(LibC.SIGTERM);
        Assert.That(process.WaitForEnd().Errors, Is.Empty);
    }

    // The one whose first arguments are these.
    private static int Started(params string[] arguments) => ProcFs.ProcessesWithEnvironment(VmmProcess.Mark)
        .Single(id => File.ReadAllText($"/proc/{id}/cmdline").Contains($"\0{string.Join('\0', arguments)}\0", StringComparison.Ordinal));

    private VmmProcess StartRunning(string kind, params string[] options) => StartRunning(kind, out _, options);

    // A machine whose guest waits for its power button.
    private VmmProcess StartRunning(string kind, out FakeBackend backend, params string[] options)
    {
        backend = null!;
        if (kind == "socket")
            backend = Keep(new FakeBackend(Path.Combine(Scratch, "peer")) { Config = new byte[60] }.Start());
        VmmProcess process = StartVmm(CommandOf(kind, options));
        if (kind == "server")
            StartVmm("backend", "rng", "--client", "--socket-path", Path.Combine(Scratch, "server"));
        if (kind == "exec")
            process.WaitForErrors("ready\n");     // --dmesg -
        else
            process.WaitForOutput("ready\n");
        Eventually.True(
            () => ProcessThreads.Of(process.Id).Count(thread => ProcessThreads.Name(process.Id, thread).StartsWith("vcpu", StringComparison.Ordinal)
                && ProcessThreads.IsWaiting(process.Id, thread)) == 2,
            () => "the vCPUs do not wait");
        Assert.That(process.Errors.Split('\n'), Has.None.Contain("warn").And.None.Contain("error"), "what is confined misses nothing");
        return process;
    }

    private string[] CommandOf(string kind, params string[] options)
    {
        string[] machine = ["--kernel", Payloads.Path("powerbutton"), "--cpus", "2", .. options], run = ["run", .. machine];
        switch (kind)
        {
            case "tap":
                if (!File.Exists("/dev/vhost-net") || !Environment.IsPrivilegedProcess)
                    Assert.Ignore("vhost-net is missing, or this is not root");
                return [.. run, "--net", $"tap={Keep(new HostTap(TapNumber)).Name}"];
            case "vsock":
                if (!File.Exists("/dev/vhost-vsock"))
                    Assert.Ignore("vhost-vsock is missing");
                return [.. run, "--vsock", "cid=4711"];
            case "disk":
                string image = Path.Combine(Scratch, "disk.img");
                File.WriteAllBytes(image, new byte[1 << 20]);
                return [.. run, "--disk", $"path={image}"];
            case "socket":
                return [.. run, "--disk", $"socket={Path.Combine(Scratch, "peer")}"];
            case "server":
                return [.. run, "--vhost-user", $"type=rng,socket={Path.Combine(Scratch, "server")},server=on"];
            // No agent answers in such a guest: it runs until a signal ends it.
            case "exec":
                return ["exec", .. machine, .. options.Contains("--dmesg") ? Array.Empty<string>() : ["--dmesg", "-"], "--", "true"];
            default:
                return run;
        }
    }

    private static void End(VmmProcess process, string kind)
    {
        if (kind != "exec")
        {
            PressPowerButton(process);
            return;
        }
        process.Signal(LibC.SIGTERM);
        VmmResult result = process.WaitForEnd();
        Assert.That((result.ExitCode, result.Output), Is.EqualTo((128 + LibC.SIGTERM, "")), result.Summary);
    }

    private static void PressPowerButton(VmmProcess process)
    {
        const int powerFailure = 30;   // SIGPWR
        process.Signal(powerFailure);
        VmmResult result = process.WaitForEnd();
        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(result.Output, Does.EndWith("pressed\n"));
    }
}
