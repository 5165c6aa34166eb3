using System.Net;
using System.Net.Sockets;
using NUnit.Framework;
using Vmm.Tests.Boot;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.Kernel;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.Confinement;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Backend;
using Vmm.Vhost.User.Frontend;
using Vmm.Vhost.User.Protocol;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Tests.Native;

/// <summary>Every public type of the library that is to be disposed may be disposed again, whatever its descriptors' numbers are by then; and
/// leaves nothing open where it cannot be made.</summary>
[NonParallelizable]
public sealed class DisposeTests
{
    // What can only be had on a host with the kernel's data planes: their Dispose is VhostKernelBackend's.
    private static readonly Type[] s_devices = [typeof(VhostNet), typeof(VhostVsock), typeof(VhostScsi), typeof(VhostVdpa)];

    // What a process with threads of its own, as this one, cannot have: SandboxTests look at the threads of vmm run.
    private static readonly Type[] s_ofYoungProcesses = [typeof(ConfinedStarter)];

    private static readonly Dictionary<Type, Func<IDisposable>> s_makers = new()
    {
        [typeof(FileDescriptor)] = () => FileDescriptor.Open("/dev/null", OpenMode.ReadWrite),
        [typeof(EventFd)] = () => new EventFd(),
        [typeof(TimerFd)] = () => new TimerFd(),
        [typeof(Epoll)] = () => new Epoll(),
        [typeof(EventLoop)] = MakeEventLoop,
        [typeof(UnixSocket)] = () => Socket(),
        [typeof(UnixListener)] = () => UnixListener.Listen(NewPath()),
        [typeof(DirectoryLock)] = () => DirectoryLock.TryTake(Path.GetTempPath(), 30_000)!,
        [typeof(SystemLog)] = MakeSystemLog,
        [typeof(UdpSocket)] = () => UdpSocket.Connect(new IPEndPoint(IPAddress.Loopback, 0), new IPEndPoint(IPAddress.Loopback, 9), 4096),
        [typeof(NetworkSocket)] = () => NetworkSocket.ForLinkChanges(),
        [typeof(TerminalMaster)] = () => TerminalMaster.Open(),
        [typeof(RegularFile)] = () => RegularFile.OpenRead(FilePath()),
        [typeof(DiskFile)] = () => DiskFile.Open(FilePath(), readOnly: false, direct: false),
        [typeof(MappedFile)] = MakeMappedFile,
        [typeof(MemoryMapping)] = () => MemoryMapping.Reserve(1 << 20),
        [typeof(NativeBuffer)] = () => new NativeBuffer(64),
        [typeof(IoUring)] = MakeIoUring,
        [typeof(ChildProcess)] = MakeChild,
        [typeof(ProcessDescriptor)] = () => ProcessDescriptor.TryOpen(Environment.ProcessId)!,
        [typeof(GuestMemory)] = () => GuestMemory.Create([(new(0), 1 << 20)]),
        [typeof(SplitVirtqueueDriver)] = () => new SplitVirtqueueDriver(s_memory!, new(0), 16),
        [typeof(VhostUserMessage)] = MakeMessage,
        [typeof(VhostUserConnection)] = () => new VhostUserConnection(Socket(), "peer"),
        [typeof(VhostUserSession)] = () => new VhostUserSession(Socket(), "peer"),
        [typeof(BackendRequestReceiver)] = () =>
        {
            var channel = BackendRequestReceiver.Create("peer", 0, new Requests(), out FileDescriptor theirs);
            theirs.Dispose();
            return channel;
        },
        [typeof(BackendRequestSender)] = () =>
            new BackendRequestSender(new VhostUserConnection(Socket(), "peer"), VhostUserProtocolFeatures.Config, TimeSpan.FromSeconds(1)),
        [typeof(VhostUserServer)] = MakeServer,
        [typeof(VhostUserFrontend)] = MakeFrontend,
    };

    private static readonly Dictionary<string, Action> s_failures = new()
    {
        [nameof(FileDescriptor)] = () => FileDescriptor.Open("/no/such/file", OpenMode.ReadOnly),
        [nameof(EventFd)] = () => EventFd.Adopt(MemFd.Create("test", 4096)),
        [nameof(UnixSocket)] = () => UnixSocket.Connect("/no/such/socket"),
        [nameof(UnixListener)] = () => UnixListener.Listen("/no/such/directory/socket"),
        [nameof(UdpSocket)] = () => UdpSocket.Connect(new IPEndPoint(IPAddress.Parse("192.0.2.1"), 1), new IPEndPoint(IPAddress.Loopback, 9), 4096),
        [nameof(RegularFile)] = () => RegularFile.OpenRead("/dev/null"),
        [nameof(DiskFile)] = () => DiskFile.Open("/dev/null", readOnly: true, direct: false),
        [nameof(MemFd)] = () => MemFd.Create("test", ulong.MaxValue),
        [nameof(IoUring)] = () =>
        {
            using FileDescriptor file = FileDescriptor.Open("/dev/null", OpenMode.ReadWrite);
            using FileDescriptor other = FileDescriptor.Open("/dev/null", OpenMode.ReadWrite);
            var closed = new EventFd();
            closed.Dispose();
            new IoUring(1, file, closed).Dispose();
        },
        [nameof(ChildProcess)] = () =>
        {
            using UnixSocket inherited = Socket();
            ChildProcess.Start("/no/such/program", [], inherited).Dispose();
        },
        [nameof(GuestMemory)] = () => GuestMemory.Create([(new(0), 1UL << 62)]),
        [nameof(SplitVirtqueueDriver)] = () => new SplitVirtqueueDriver(s_memory!, new(0), 7),
        [nameof(VhostUserConnection)] = () => new VhostUserConnection(null!, "peer"),
        [nameof(VhostUserSession)] = () => new VhostUserSession(null!, "peer"),
        [nameof(BackendRequestReceiver)] = () => BackendRequestReceiver.Create("peer", 0, null!, out _),
        [nameof(VhostUserServer)] = () => new VhostUserServer(VhostUserEndpoint.ListenOn("/no/such/directory/socket"), new EchoDevice()),
        ["VhostUserServer of a device"] = () => new VhostUserServer(VhostUserEndpoint.ListenOn(NewPath()), new EchoDevice { Queues = 0 }),
        [nameof(VhostUserFrontend)] = () => VhostUserFrontend.Open(FrontendOptions(NewPath()) with { ConnectTimeout = TimeSpan.FromMilliseconds(1) }),
        ["VhostUserFrontend of a server"] = () => VhostUserFrontend.Open(FrontendOptions("") with { Endpoint = VhostUserEndpoint.ListenOn("/no/such/directory/socket") }),
        ["VhostUserFrontend of no socket"] = () => VhostUserFrontend.Open(FrontendOptions("") with { Endpoint = VhostUserEndpoint.Inherit(0) }),
        [nameof(VhostNet)] = () =>
        {
            using var tap = new EventFd();
            new VhostNet(tap, "/dev/null").Dispose();
        },
        [nameof(VhostVdpa)] = () => new VhostVdpa("/dev/null").Dispose(),
    };

    // What throws after the disposal, of those types that are no descriptors themselves: ClosedDescriptorTests has the descriptors.
    private static readonly Dictionary<Type, Action<IDisposable>[]> s_uses = new()
    {
        [typeof(EventLoop)] = [one => ((EventLoop)one).Add(s_memory!.File, () => { })],
        [typeof(MappedFile)] = [one => _ = ((MappedFile)one).Bytes.Length, one => ((MappedFile)one).OpenStream(0, 1)],
        [typeof(MemoryMapping)] = [one => ((MemoryMapping)one).Populate(0, 4096), one => ((MemoryMapping)one).Discard()],
        [typeof(NativeBuffer)] = [one => _ = ((NativeBuffer)one).Address, one => _ = ((NativeBuffer)one).AsSpan<byte>().Length],
        [typeof(IoUring)] =
        [
            one => ((IoUring)one).Sync(1), one => ((IoUring)one).Push(), one => ((IoUring)one).TryTake(out _, out _),
            one => ((IoUring)one).SetNotifications(true),
        ],
        [typeof(GuestMemory)] =
        [
            one => ((GuestMemory)one).Slice(new(0), 1), one => ((GuestMemory)one).Read<byte>(new(0)), one => ((GuestMemory)one).Clear(),
            one => ((GuestMemory)one).Discard(), one => ((GuestMemory)one).TryUseHugePages(new(0), 4096),
        ],
        [typeof(SplitVirtqueueDriver)] =
        [
            one => ((SplitVirtqueueDriver)one).Kick(), one => ((SplitVirtqueueDriver)one).Add([(new(0), 1)], []),
            one => ((SplitVirtqueueDriver)one).TryTake(out _, out _), one => ((SplitVirtqueueDriver)one).Wait(TimeSpan.Zero),
        ],
        [typeof(VhostUserConnection)] =
        [
            one => ((VhostUserConnection)one).Send(1, 0, [], [], TimeSpan.FromSeconds(1)),
            one => ((VhostUserConnection)one).Receive(TimeSpan.Zero, TimeSpan.FromSeconds(1)),
        ],
        [typeof(VhostUserServer)] = [one => ((VhostUserServer)one).Start(), one => ((VhostUserServer)one).Run()],
        [typeof(VhostUserFrontend)] =
        [
            one => ((VhostUserFrontend)one).SetFeatures(VirtioFeatures.Version1), one => ((VhostUserFrontend)one).SetMemory(s_memory!),
            one => ((VhostUserFrontend)one).SetStatus(0), one => ((VhostUserFrontend)one).Start([]), one => ((VhostUserFrontend)one).Stop(0),
            one => ((VhostUserFrontend)one).StopAll(), one => ((VhostUserFrontend)one).Reset(), one => ((VhostUserFrontend)one).MayWrite(s_memory!),
            one => ((VhostUserFrontend)one).SetRingEnabled(0, false), one => ((VhostUserFrontend)one).ReadConfig(new byte[8]),
            one => ((VhostUserFrontend)one).WriteConfig(0, [1]),
        ],
    };

    // What ends like its connection.
    private static readonly Dictionary<Type, Action<IDisposable>> s_usesOfConnections = new()
    {
        [typeof(VhostUserSession)] = one => ((VhostUserSession)one).GetFeatures(),
        [typeof(BackendRequestSender)] = one => ((BackendRequestSender)one).ConfigurationChanged(),
    };

    // What needs nothing that it has given back: they do nothing, or say what they knew.
    private static readonly Type[] s_useless = [typeof(ChildProcess), typeof(DirectoryLock), typeof(VhostUserMessage), typeof(BackendRequestReceiver)];

    private static TempFile s_file = null!;
    private static GuestMemory s_memory = null!;

    private static IEnumerable<Type> Types => s_makers.Keys;

    private static IEnumerable<string> Failures => s_failures.Keys;

    private static IEnumerable<Type> Used => s_uses.Keys;

    private static IEnumerable<Type> UsedConnections => s_usesOfConnections.Keys;

    [OneTimeSetUp]
    public void Make()
    {
        s_file = new TempFile(new byte[8192]);
        s_memory = GuestMemory.Create([(new(0), 1 << 20)]);
    }

    private static SystemLog MakeSystemLog()
    {
        string path = NewPath();
        using var daemon = new System.Net.Sockets.Socket(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified);
        daemon.Bind(new UnixDomainSocketEndPoint(path));
        return SystemLog.TryConnect("test", path)!;
    }

    [OneTimeTearDown]
    public void Free()
    {
        s_file.Dispose();
        s_memory.Dispose();
    }

    [Test]
    public void Table_HasEveryPublicTypeThatIsToBeDisposed()
    {
        IEnumerable<Type> disposable = typeof(IVhostBackend).Assembly.GetExportedTypes().Where(type =>
            type is { IsAbstract: false, IsInterface: false, IsByRefLike: false } && typeof(IDisposable).IsAssignableFrom(type));
        Assert.That(s_makers.Keys.Concat(s_devices).Concat(s_ofYoungProcesses), Is.EquivalentTo(disposable));
    }

    [TestCaseSource(nameof(Types))]
    public void Dispose_Twice_TouchesNothingOfOthers(Type type)
    {
        IDisposable one = s_makers[type]();
        one.Dispose();
        using var others = new OtherFiles();
        Assert.That(one.Dispose, Throws.Nothing);
        Assert.That(one.Dispose, Throws.Nothing);
        others.AssertUntouched();
    }

    [Test]
    public void Table_HasTheUsesOfEveryTypeThatIsNoDescriptor() =>
        Assert.That(
            s_uses.Keys.Concat(s_usesOfConnections.Keys).Concat(s_useless),
            Is.EquivalentTo(s_makers.Keys.Where(type => !type.IsAssignableTo(typeof(FileDescriptor)))));

    [TestCaseSource(nameof(Used))]
    public void Use_AfterTheDisposal_Throws(Type type)
    {
        IDisposable one = s_makers[type]();
        one.Dispose();
        using var others = new OtherFiles();
        Assert.Multiple(() =>
        {
            for (int i = 0; i < s_uses[type].Length; i++)
                Assert.That(() => s_uses[type][i](one), Throws.TypeOf<ObjectDisposedException>(), $"use {i}");
        });
        others.AssertUntouched();
    }

    [TestCaseSource(nameof(UsedConnections))]
    public void Use_AfterTheEndOfTheConnection_SaysSo(Type type)
    {
        IDisposable one = s_makers[type]();
        one.Dispose();
        using var others = new OtherFiles();
        Assert.That(() => s_usesOfConnections[type](one), Throws.TypeOf<VhostUserException>());
        others.AssertUntouched();
    }

    [TestCaseSource(nameof(Failures))]
    public void Failure_AHundredTimes_LeavesNothingOpen(string name)
    {
        Assert.That(() => s_failures[name](), Throws.Exception, name);
        int before = Directory.GetFiles("/proc/self/fd").Length;
        for (int i = 0; i < 100; i++)
            Assert.That(() => s_failures[name](), Throws.Exception);
        // The runtime opens and closes some of its own.
        Eventually.True(() => Directory.GetFiles("/proc/self/fd").Length < before + 20, () => $"{Directory.GetFiles("/proc/self/fd").Length - before} are open");
    }

    private static string FilePath() => s_file.Path;

    private static string NewPath() => Path.Combine(Path.GetTempPath(), Path.GetRandomFileName());

    private static UnixSocket Socket()
    {
        (UnixSocket one, UnixSocket other) = UnixSocket.Pair();
        other.Dispose();
        return one;
    }

    private static EventLoop MakeEventLoop()
    {
        var loop = new EventLoop();
        loop.Add(s_memory.File, () => { }, PollEvents.None);
        return loop;
    }

    private static MappedFile MakeMappedFile()
    {
        using RegularFile file = RegularFile.OpenRead(FilePath());
        return file.Map();
    }

    private static IoUring MakeIoUring()
    {
        if (IoUring.Probe() is int error and not 0)
            Assert.Ignore($"this process may not have an io_uring (errno {error})");
        using FileDescriptor file = FileDescriptor.Open("/dev/null", OpenMode.ReadWrite);
        using var ready = new EventFd();
        return new IoUring(1, file, ready);
    }

    private static ChildProcess MakeChild()
    {
        using UnixSocket inherited = Socket();
        return ChildProcess.Start("/bin/true", [], inherited);
    }

    private static VhostUserMessage MakeMessage()
    {
        (UnixSocket one, UnixSocket other) = UnixSocket.Pair();
        using var sender = new VhostUserConnection(one, "peer");
        using var receiver = new VhostUserConnection(other, "peer");
        using var descriptor = new EventFd();
        sender.Send(1, 0, [1, 2, 3], [descriptor], TimeSpan.FromSeconds(10));
        return receiver.Receive(TimeSpan.FromSeconds(10), TimeSpan.FromSeconds(10))!;
    }

    private static VhostUserServer MakeServer()
    {
        var server = new VhostUserServer(VhostUserEndpoint.ListenOn(NewPath()), new EchoDevice());
        server.Start();
        return server;
    }

    private static VhostUserFrontendOptions FrontendOptions(string path) => new()
    {
        Endpoint = VhostUserEndpoint.ConnectTo(path),
        Device = "--test",
        RingCount = 1,
        QueueSize = 16,
        Sync = new Lock(),
    };

    private static VhostUserFrontend MakeFrontend()
    {
        string path = NewPath();
        using var server = new VhostUserServer(VhostUserEndpoint.ListenOn(path), new EchoDevice());
        server.Start();
        return VhostUserFrontend.Open(FrontendOptions(path) with { ConnectTimeout = TimeSpan.FromSeconds(20), Reconnect = false });
    }

    private sealed class Requests : IVhostUserBackendRequests;
}
