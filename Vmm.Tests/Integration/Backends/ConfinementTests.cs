using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using NUnit.Framework;
using Tmds.Linux;
using Vmm.Devices.Backends.Vsock;
using Vmm.Tests.Fakes;
using Vmm.Tests.Integration.Linux.Devices;
using Vmm.Vhost.Kernel;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.Confinement;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Tests.Integration.Backends;

/// <summary>What a back-end process can still do once it serves, seen from inside: on each of its threads, the runtime's among them.</summary>
[Category("Confinement")]
public class ConfinementTests : BackendTest
{
    private const int Eperm = 1, Eacces = 13, Enosys = 38;
    private const int TapNumber = 92;

    // Every kind of back-end, as they hold different descriptors and may do different things.
    internal static readonly string[] Kinds = ["blk", "blk threads", "net tap", "net udp", "rng", "console pty", "console file", "vsock", "vsock accept"];

    private string _injector = "";

    [SetUp]
    public void Prepare()
    {
        if (!VmmProcess.IsNative)
            Assert.Ignore("only the native binary is confined: set VMM_BINARY");
        _injector = SystemCallInjector.Build();
    }

    [TestCaseSource(typeof(ConfinementTests), nameof(Kinds))]
    public void Threads_HaveAFilterAndNoPrivileges(string kind)
    {
        VmmProcess process = StartServing(kind);
        Assert.That(Threads(process.Id), Has.Length.GreaterThanOrEqualTo(4), "the main one, the runtime's two, and a queue's");
        foreach (int thread in Threads(process.Id))
        {
            string status = ProcessThreads.Status(process.Id, thread);
            Assert.That(status, Does.Contain("NoNewPrivs:\t1\n").And.Contain("Seccomp:\t2\n").And.Contain("CapPrm:\t0000000000000000\n")
                .And.Contain("CapEff:\t0000000000000000\n").And.Contain("CapInh:\t0000000000000000\n").And.Contain("CapAmb:\t0000000000000000\n"), status);
        }
    }

    [TestCaseSource(typeof(ConfinementTests), nameof(Kinds))]
    public void Escapes_OnEveryThread_AreRefusedAndItServesOn(string kind)
    {
        VmmProcess process = StartServing(kind, out FrontEndDriver frontEnd);
        InjectedCall[] calls = [.. EscapeAttempts.Possible, .. EscapeAttempts.Others];
        Assert.That(calls, Has.Length.GreaterThan(40));
        int attacked = 0;
        foreach (int thread in Threads(process.Id).Where(thread => ProcessThreads.WaitsSoon(process.Id, thread)))
        {
            long?[] results = SystemCallInjector.Calls(_injector, thread, calls);
            for (int i = 0; i < calls.Length; i++)
                Assert.That(results[i], Is.EqualTo(-Eperm).Or.EqualTo(long.MinValue), $"{calls[i]} in {Name(process.Id, thread)}");
            Assert.That(SystemCallInjector.Call(_injector, thread, "clone3", "0", "0"), Is.EqualTo(-Enosys));
            attacked++;
        }
        Assert.That(attacked, Is.GreaterThanOrEqualTo(3));
        Assert.That(frontEnd.Get(VhostUserRequest.GetFeatures), Is.Not.Zero);
    }

    [TestCaseSource(typeof(ConfinementTests), nameof(Kinds))]
    public void Requests_OnEveryDescriptor_AreRefused(string kind)
    {
        VmmProcess process = StartServing(kind);
        string[] descriptors = [.. Directory.GetFiles($"/proc/{process.Id}/fd").Select(path => Path.GetFileName(path)!)];
        InjectedCall[] calls =
        [
            .. from descriptor in descriptors from request in EscapeAttempts.Requests select new InjectedCall("ioctl", descriptor, request, "0"),
            // And what an io_uring would do.
            .. from descriptor in descriptors from operation in Enumerable.Range(0, 32) select new InjectedCall("io_uring_register", descriptor, $"{operation}", "0", "0"),
        ];
        Assert.That(calls, Has.Length.GreaterThan(200));
        foreach (InjectedCall[] some in calls.Chunk(1000))
        {
            long?[] results = SystemCallInjector.Calls(_injector, process.Id, some);
            for (int i = 0; i < some.Length; i++)
                Assert.That(results[i], Is.EqualTo(-Eperm), $"{some[i]}");
        }
    }

    // With hugepages=on the guest's pages are reserved. Who gives some of them up and takes them himself ends the VMM by SIGBUS.
    [TestCaseSource(typeof(ConfinementTests), nameof(Kinds))]
    public void HugePages_OfTheGuest_CannotBeTaken(string kind)
    {
        VmmProcess process = StartServing(kind);
        long?[] results = SystemCallInjector.Calls(_injector, process.Id,
        [
            new("madvise", "0", "0x200000", "9"),                           // MADV_REMOVE
            new("memfd_create", "@a", "4"),                                 // MFD_HUGETLB
            new("mmap", "0", "0x200000", "3", "0x40022", "-1", "0"),        // MAP_HUGETLB
            new("madvise", "0", "0x1000", "16"),
        ]);
        Assert.That(results[..3], Is.All.EqualTo(-Eperm));
        Assert.That(results[3], Is.EqualTo(-12), "its own memory is its own business");
    }

    [Test]
    public void Input_OfTheStarter_IsNotRead()
    {
        VmmProcess process = StartServing("rng");
        Assert.That(new FileInfo($"/proc/{process.Id}/fd/0").LinkTarget, Is.EqualTo("/dev/null"));
    }

    // Nothing is open by which a process reaches more than its device: no socket for interfaces, no directory, no other process.
    [TestCaseSource(typeof(ConfinementTests), nameof(Kinds))]
    public void Descriptors_AreOfTheDeviceOnly(string kind)
    {
        VmmProcess process = StartServing(kind);
        string sockets = File.ReadAllText($"/proc/{process.Id}/net/unix");
        string udp = File.ReadAllText($"/proc/{process.Id}/net/udp");
        foreach (string path in Directory.GetFiles($"/proc/{process.Id}/fd").Where(path => int.Parse(Path.GetFileName(path), CultureInfo.InvariantCulture) > 2))
        {
            string target = new FileInfo(path).LinkTarget!;
            if (target.StartsWith("socket:[", StringComparison.Ordinal))
            {
                string inode = target["socket:[".Length..^1];
                Assert.That(sockets.Contains($" {inode} ", StringComparison.Ordinal) || sockets.Contains($" {inode}\n", StringComparison.Ordinal)
                    || (kind == "net udp" && udp.Contains($" {inode} ", StringComparison.Ordinal)), $"{path} is a socket that is neither Unix nor the wire");
                continue;
            }
            Assert.That(Directory.Exists(target), Is.False, $"{path} is {target}");
            Assert.That(target, Does.Not.StartWith("anon_inode:[pidfd]").And.Not.StartWith("/proc").And.Not.StartWith("/sys"));
        }
    }

    [TestCaseSource(typeof(EscapeAttempts), nameof(EscapeAttempts.Deadly))]
    public void Call_ThatABreakInGoesOnWith_EndsTheProcess(InjectedCall call)
    {
        // From the main thread, and from that of the runtime's finalizers.
        foreach (bool isMain in (bool[])[true, false])
        {
            VmmProcess process = StartServing("rng");
            int thread = Threads(process.Id).First(thread => thread == process.Id == isMain && ProcessThreads.WaitsSoon(process.Id, thread));
            string name = Name(process.Id, thread);
            long? result = SystemCallInjector.Call(_injector, thread, call.Name, call.Arguments);
            if (result == long.MinValue)
                Assert.Ignore($"the C library's headers here do not know {call.Name}");
            Assert.That(result, Is.Null, $"{call} in {name}");
            Assert.That(process.WaitForEnd().ExitCode, Is.EqualTo(128 + 31), "SIGSYS");
        }
    }

    // Landlock and capabilities alone, with a kernel that does not filter calls: what is behind the filter on each thread.
    [TestCase("rng")]
    [TestCase("vsock")]
    [TestCase("vsock accept")]
    public void Files_WithoutTheFilter_AreOutOfReachOnEveryThread(string kind)
    {
        if (Landlock.Version == 0)
            Assert.Ignore("this kernel has no Landlock");
        using var victim = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        victim.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        victim.Listen();
        string port = $"{((IPEndPoint)victim.LocalEndPoint!).Port:x4}";
        string name = $"vmm{Environment.ProcessId}";
        using var abstractVictim = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        abstractVictim.Bind(new UnixDomainSocketEndPoint($"\0{name}"));
        abstractVictim.Listen();
        string file = Path.Combine(Scratch, "file");
        File.WriteAllText(file, "");

        int process = StartWithoutFilter(kind);
        int attacked = 0;
        foreach (int thread in Threads(process).Where(thread => ProcessThreads.WaitsSoon(process, thread)))
        {
            InjectedCall[] refused =
            [
                new("openat", "-100", "@/etc/hostname", "0"),
                new("openat", "-100", $"@{file}", "1"),
                new("openat", "-100", "@/proc/self/mem", "2"),
                new("openat", "-100", "@/dev/null", "2"),
                new("open", "@/", "0x10000"),
                new("creat", $"@{file}2", "0600"),
                new("truncate", $"@{file}", "0"),
                new("unlink", $"@{file}"),
                new("unlink", $"@{SocketPath}"),
                new("rename", $"@{file}", $"@{file}2"),
                new("mkdir", $"@{file}2", "0700"),
                new("rmdir", $"@{Scratch}"),
                new("symlink", "@/etc/shadow", $"@{file}2"),
                new("mknodat", "-100", $"@{file}2", "0x1180", "0"),     // a FIFO
                new("execve", "@/bin/true", "0", "0"),
            ];
            if (Landlock.Version < 3)
                refused = [.. refused.Where(call => call.Name != "truncate")];
            long?[] results = SystemCallInjector.Calls(_injector, thread, refused);
            for (int i = 0; i < refused.Length; i++)
                Assert.That(results[i], Is.EqualTo(-Eacces), $"{refused[i]} in {Name(process, thread)}");

            long?[] connected = SystemCallInjector.Calls(_injector, thread,
            [
                new("socket", "2", "1", "0"), new("connect", "=0", $"%0200{port}7f0000010000000000000000", "16"),
                new("socket", "1", "1", "0"), new("connect", "=2", $"%010000{Convert.ToHexString(System.Text.Encoding.ASCII.GetBytes(name))}", $"{3 + name.Length}"),
                new("kill", "1", "0"), new("fchown", "0", "65534", "65534"), new("sethostname", "@x", "1"), new("chroot", "@/"),
            ]);
            if (Landlock.Version >= 4)
                Assert.That(connected[1], Is.EqualTo(-Eacces), $"TCP in {Name(process, thread)}");
            if (Landlock.Version >= 6)
                Assert.That(connected[3], Is.EqualTo(-Eperm), $"an abstract socket in {Name(process, thread)}");
            Assert.That(connected[6..], Is.All.EqualTo(-Eperm), $"capabilities in {Name(process, thread)}");
            attacked++;
        }
        Assert.That(attacked, Is.GreaterThanOrEqualTo(3));
        Assert.That(File.Exists(file));
    }

    [Test]
    public void Escapes_WithTheSandboxOff_Succeed()
    {
        if (!Environment.IsPrivilegedProcess)
            Assert.Ignore("what root can do is shown by root");
        VmmProcess process = StartWaiting("rng", "--sandbox", "off");
        long?[] results = SystemCallInjector.Calls(_injector, process.Id, EscapeAttempts.Possible);
        for (int i = 0; i < results.Length; i++)
            Assert.That(results[i], Is.Not.Negative.Or.EqualTo(long.MinValue), $"{EscapeAttempts.Possible[i]}");
        Assert.That(results.Count(result => result >= 0), Is.GreaterThan(30));
    }

    // A process that was started otherwise: a shell and .NET do not tell a death by a signal from the exit status 128+N.
    [Test]
    public void Signal_Confined_TheProcessDiesOfIt()
    {
        using FileDescriptor nothing = FileDescriptor.Open("/dev/null", OpenMode.ReadWrite);
        using ChildProcess process = ChildProcess.Start(VmmProcess.Command[0], ["backend", "rng", "--socket-path", SocketPath], nothing);
        Eventually.True(
            () => IsReady(process.Id) && File.ReadAllText($"/proc/{process.Id}/status").Contains("Seccomp:\t2\n", StringComparison.Ordinal),
            () => "it does not wait for a front-end");
        Assert.That(LibC.kill(process.Id, LibC.SIGTERM), Is.Zero);
        Assert.That(process.WaitForEnd(30_000));
        Assert.That(process.End, Is.EqualTo("signal 15"));
    }

    [Test]
    public void Socket_OfAConfinedProcess_StaysAndIsTakenOver()
    {
        VmmProcess process = StartWaiting("rng");
        process.Signal(LibC.SIGTERM);
        process.WaitForEnd();
        Assert.That(File.Exists(SocketPath), "it may remove nothing");
        StartWaiting("rng");
        Assert.That(ConnectFrontEnd().Get(VhostUserRequest.GetFeatures), Is.Not.Zero);
    }

    [Test]
    public void Client_PathThatIsNoSocket_IsRefusedAtOnce()
    {
        string file = Path.Combine(Scratch, "file");
        File.WriteAllText(file, "");
        VmmResult result = StartVmm("backend", "rng", "--client", "--socket-path", file).WaitForEnd();
        Assert.That((result.ExitCode, result.Errors), Is.EqualTo(
            (1, $"vmm: --socket-path: cannot connect to {file}: Socket operation on non-socket (errno 88): give the path of the other side's socket\n")), result.Summary);
    }

    // What a datagram of the wire's is sent by has no address; with another call it could have any.
    [Test]
    public void Udp_Confined_SendsToItsPeerOnly()
    {
        VmmProcess process = StartServing("net udp");
        Assert.That(SystemCallInjector.Call(_injector, process.Id, "sendmsg", "0", "0", "0"), Is.EqualTo(-Eperm));
    }

    // One that connects to its front-end may call connect(2), and has sockets that could be connected to anybody.
    [Test]
    public void Udp_Client_CannotConnectItsSocketsAgain()
    {
        using var listener = UnixListener.Listen(SocketPath);
        VmmProcess process = StartVmm(
            "backend", "net", "--client", "--socket-path", SocketPath, "--socket-udp", "local=127.0.0.1:39200,remote=127.0.0.1:39300", "--queues", "2");
        Eventually.True(() => IsReady(process.Id), () => "it does not wait");
        string udp = File.ReadAllText($"/proc/{process.Id}/net/udp");
        string[] sockets = [.. Directory.GetFiles($"/proc/{process.Id}/fd").Where(path =>
            new FileInfo(path).LinkTarget is { } target && target.StartsWith("socket:[", StringComparison.Ordinal)
            && udp.Contains($" {target[8..^1]} ", StringComparison.Ordinal)).Select(path => Path.GetFileName(path)!)];
        Assert.That(sockets, Has.Length.EqualTo(2));
        // A null address: EFAULT if the call were allowed.
        Assert.That(
            SystemCallInjector.Calls(_injector, process.Id, [.. sockets.Select(fd => new InjectedCall("connect", fd, "0", "16"))]),
            Is.All.EqualTo(-Eperm));
    }

    [TestCase("vsock")]
    [TestCase("client")]
    public void Connecting_Confined_MakesUnixStreamsOnly(string kind)
    {
        using var listener = UnixListener.Listen(SocketPath);
        VmmProcess process = kind == "client"
            ? StartVmm("backend", "rng", "--client", "--socket-path", SocketPath)
            : StartVmm("backend", "vsock", "--client", "--socket-path", SocketPath, "--uds-path", Path.Combine(Scratch, "vsock"));
        Eventually.True(() => IsReady(process.Id), () => "it does not wait");
        long?[] results = SystemCallInjector.Calls(_injector, process.Id,
            [new("socket", "1", "1", "0"), new("socket", "1", "2", "0"), new("socket", "1", "5", "0"), new("socket", "2", "1", "0"), new("socketpair", "1", "1", "0", "0")]);
        Assert.That(results[0], Is.Positive);
        Assert.That(results[1..], Is.All.EqualTo(-Eperm));
    }

    // Not even where it would connect to if it made the guest's connections.
    [Test]
    public void Vsock_ProgramsAccept_ConnectsToNobody()
    {
        string own = Path.Combine(Scratch, "vsock");
        using var listener = UnixListener.Listen($"{own}_1024");
        VmmProcess process = StartServing("vsock accept", out FrontEndDriver frontEnd);
        string address = $"%0100{Convert.ToHexString(System.Text.Encoding.UTF8.GetBytes($"{own}_1024"))}00";
        foreach (int thread in Threads(process.Id).Where(thread => ProcessThreads.WaitsSoon(process.Id, thread)))
        {
            Assert.That(
                SystemCallInjector.Calls(_injector, thread,
                    [new("socket", "1", "1", "0"), new("socketpair", "1", "1", "0", $"%{new string('0', 16)}"), new("connect", "0", address, $"{3 + own.Length + 5}")]),
                Is.All.EqualTo(-Eperm), Name(process.Id, thread));
        }
        Assert.That(frontEnd.Get(VhostUserRequest.GetFeatures), Is.Not.Zero);
        Assert.That(Poll.Wait([new PollEntry(listener, PollEvents.Readable)], 0), Is.Zero);
    }

    [Test]
    public void Vsock_ProgramAccepts_GetsTheConnectionOfAConfinedBackEnd()
    {
        VmmProcess process = StartBackend(CommandOf("vsock accept")[0], CommandOf("vsock accept")[1..]);
        using var program = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { ReceiveTimeout = 10_000 };
        FrontEndDriver frontEnd = ConnectFrontEnd();
        using FrontEndRing receive = frontEnd.Start();
        using FrontEndRing transmit = frontEnd.Ring(1);
        transmit.SetUp();
        transmit.Enable(true);
        program.Connect(new UnixDomainSocketEndPoint(Path.Combine(Scratch, "vsock")));
        program.Send("ACCEPT 1024\n"u8);
        receive.Add([], 1024);
        var request = new VsockHeader
        {
            SourceCid = VhostVsock.MinCid,
            DestinationCid = 2,
            SourcePort = 1000,
            DestinationPort = 1024,
            Type = VsockType.Stream,
            Operation = VsockOperation.Request,
            BufferAllocation = 1 << 16,
        };
        transmit.Add(MemoryMarshal.AsBytes(new ReadOnlySpan<VsockHeader>(in request)).ToArray(), 0);
        VsockHeader response = MemoryMarshal.Read<VsockHeader>(receive.Take().Bytes);
        Assert.That((response.Operation, response.SourcePort), Is.EqualTo((VsockOperation.Response, 1024u)), process.Errors);
        byte[] answer = new byte[8];
        Assert.That(answer[..program.Receive(answer)], Is.EqualTo("OK 1000\n"u8.ToArray()));
    }

    // A back-end that has done all that comes before the first message.
    private VmmProcess StartWaiting(string device, params string[] options)
    {
        VmmProcess process = StartBackend(device, options);
        Eventually.True(() => IsReady(process.Id), () => "it does not wait for a front-end");
        return process;
    }

    // And one that works a ring for a front-end.
    private VmmProcess StartServing(string kind) => StartServing(kind, out _);

    private VmmProcess StartServing(string kind, out FrontEndDriver frontEnd)
    {
        string[] command = CommandOf(kind);
        VmmProcess process = StartWaiting(command[0], command[1..]);
        frontEnd = ConnectFrontEnd();
        Keep(frontEnd.Start());
        int rings = command[0] switch { "rng" => 1, "vsock" => 3, _ => 2 };
        for (int i = 1; i < rings; i++)
        {
            FrontEndRing ring = Keep(frontEnd.Ring(i));
            ring.SetUp();
            ring.Enable(true);
        }
        frontEnd.Get(VhostUserRequest.GetFeatures);
        Eventually.True(() => IsReady(process.Id), () => "it does not wait for a message");
        Assert.That(process.Errors, Is.Empty, "what is confined misses nothing");
        return process;
    }

    private string[] CommandOf(string kind)
    {
        switch (kind)
        {
            case "net tap":
                if (!Environment.IsPrivilegedProcess)
                    Assert.Ignore("taps are root's: run as root");
                return ["net", "--tap", Keep(new HostTap(TapNumber)).Name];
            case "net udp":
                return ["net", "--socket-udp", "local=127.0.0.1:51892,remote=127.0.0.1:51893"];
            case "console pty":
                return ["console", "--path", "pty"];
            case "console file":
                return ["console", "--path", Path.Combine(Scratch, "console.log")];
            case "vsock":
                return ["vsock", "--uds-path", Path.Combine(Scratch, "vsock")];
            case "vsock accept":
                return ["vsock", "--uds-path", Path.Combine(Scratch, "vsock"), "--guest-connections", "accept"];
            case "rng":
                return ["rng"];
            default:
                string image = Path.Combine(Scratch, "disk.img");
                File.WriteAllBytes(image, new byte[1 << 20]);
                return ["blk", "--path", image, "--queues", "2", "--engine", kind == "blk" ? "auto" : "threads"];
        }
    }

    private int StartWithoutFilter(string kind)
    {
        int process = Keep(new UnfilteredProcess(_injector, [VmmProcess.Command[0], "backend", .. CommandOf(kind), "--socket-path", SocketPath])).Id;
        Eventually.True(() => IsReady(process), () => "it does not wait for a front-end");
        Assert.That(File.ReadAllText($"/proc/{process}/status"), Does.Contain("Seccomp:\t0\n"));
        return process;
    }

    private static int[] Threads(int process) => ProcessThreads.Of(process);

    private static bool IsReady(int process) => ProcessThreads.Call(process, process) == (int)SystemCallNumber.Poll;

    private static string Name(int process, int thread) => ProcessThreads.Name(process, thread);
}
