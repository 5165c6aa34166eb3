using System.Net;
using NUnit.Framework;
using Tmds.Linux;
using Vmm.Tests.Boot;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Native;

/// <summary>The number of a descriptor that was closed is the next file's: no system call may be made with it.</summary>
[NonParallelizable]
public sealed class ClosedDescriptorTests
{
    private static readonly Dictionary<string, Func<(FileDescriptor Closed, Action Use)>> s_calls = new()
    {
        ["FileDescriptor.Number"] = () => Of(Null(), fd => _ = fd.Number),
        ["FileDescriptor.Hold"] = () => Of(Null(), fd => fd.Hold().Dispose()),
        ["FileDescriptor.SetNonBlocking"] = () => Of(Null(), fd => fd.SetNonBlocking()),
        ["TryRead"] = () => Of(Null(), fd => fd.TryRead(new byte[8])),
        ["TryWrite"] = () => Of(Null(), fd => fd.TryWrite("harm"u8)),
        ["WriteAll"] = () => Of(Null(), fd => fd.WriteAll("harm"u8, "a file")),
        ["FileKind.TryGetSize"] = () => Of(Null(), fd => FileKind.TryGetSize(fd, out _, out _)),
        ["EventFd.Signal"] = () => Of(new EventFd(), fd => fd.Signal()),
        ["EventFd.Drain"] = () => Of(new EventFd(), fd => fd.Drain()),
        ["EventFd.Adopt"] = () => Of(new EventFd(), fd => EventFd.Adopt(fd)),
        ["TimerFd.Set"] = () => Of(new TimerFd(), fd => fd.Set(TimeSpan.FromSeconds(1))),
        ["TimerFd.Drain"] = () => Of(new TimerFd(), fd => fd.Drain()),
        ["Epoll.Watch"] = () => Of(new Epoll(), fd => fd.Watch(Null(), PollEvents.Readable, 0)),
        ["Epoll.Collect"] = () => Of(new Epoll(), fd => fd.Collect(new EpollEntry[1])),
        ["EventLoop.Add"] = () => Of(new EventFd(), fd =>
        {
            using var loop = new EventLoop();
            loop.Add(fd, () => { });
        }),
        ["Ioctl"] = () => Of(Null(), fd => Ioctl.TryCall(fd, new IoctlRequest(0x541B, "FIONREAD"))),
        ["UnixSocket.TrySend"] = () => Of(Socket(), fd => fd.TrySend("harm"u8, [])),
        ["UnixSocket.TrySend of it"] = () => Of(Null(), fd =>
        {
            using UnixSocket socket = Socket();
            socket.TrySend([1], [fd]);
        }),
        ["UnixSocket.TryReceive"] = () => Of(Socket(), fd => fd.TryReceive(new byte[8], [], out _)),
        ["UnixSocket.Shutdown"] = () => Of(Socket(), fd => fd.Shutdown()),
        ["UnixSocket.EndSending"] = () => Of(Socket(), fd => fd.EndSending()),
        ["UnixSocket.EndReceiving"] = () => Of(Socket(), fd => fd.EndReceiving()),
        ["UnixListener.TryAccept"] = () => Of(UnixListener.Listen(Path.Combine(Path.GetTempPath(), Path.GetRandomFileName())), fd => fd.TryAccept()),
        ["UdpSocket.TryWrite"] = () => Of(
            UdpSocket.Connect(new IPEndPoint(IPAddress.Loopback, 0), new IPEndPoint(IPAddress.Loopback, 9), 4096), fd => fd.TryWrite("harm"u8)),
        ["NetworkSocket.Drain"] = () => Of(NetworkSocket.ForLinkChanges(), fd => fd.Drain()),
        ["RegularFile.Read"] = () => Of(RegularFile.OpenRead(FilePath()), fd => fd.Read(new byte[8], 0)),
        ["RegularFile.Map"] = () => Of(RegularFile.OpenRead(FilePath()), fd => fd.Map().Dispose()),
        ["MemoryMapping.Map"] = () => Of(MemFd.Create("test", 4096), fd => MemoryMapping.Map(fd, 4096, MappingAccess.SharedReadWrite)),
        ["MemoryMapping.MapAligned"] = () => Of(
            MemFd.Create("test", 4096), fd => MemoryMapping.MapAligned(fd, 4096, MappingAccess.SharedReadWrite, 1 << 21)),
        ["DiskFile.GetSize"] = () => Of(DiskFile.Open(FilePath(), false, false), fd => fd.GetSize()),
        ["DiskFile.Discard"] = () => Of(DiskFile.Open(FilePath(), false, false), fd => fd.Discard(0, 512)),
        ["PositionedIo.Read"] = () => Of(Null(), fd => PositionedIo.Read(fd, [], 0)),
        ["PositionedIo.Write"] = () => Of(Null(), fd => PositionedIo.Write(fd, [], 0)),
        ["PositionedIo.Sync"] = () => Of(Null(), fd => PositionedIo.Sync(fd)),
        ["PositionedIo.Allocate"] = () => Of(Null(), fd => PositionedIo.Allocate(fd, AllocateMode.ZeroRange, 0, 4096)),
        ["VectoredIo.TryRead"] = () => Of(Null(), fd => VectoredIo.TryRead(fd, [])),
        ["VectoredIo.TryWrite"] = () => Of(Null(), fd => VectoredIo.TryWrite(fd, [])),
        ["IoUring of it"] = () => Of(Null(), fd =>
        {
            using var ready = new EventFd();
            new IoUring(1, fd, ready).Dispose();
        }),
        ["ProcessDescriptor.HasEnded"] = () => Of(ProcessDescriptor.TryOpen(Environment.ProcessId)!, fd => fd.HasEnded()),
        ["TerminalMaster.Size"] = () => Of(TerminalMaster.Open(), fd => _ = fd.Size),
    };

    private static TempFile s_file = null!;

    private static IEnumerable<string> Calls => s_calls.Keys;

    private static string FilePath() => s_file.Path;

    [OneTimeSetUp]
    public void MakeFile() => s_file = new TempFile(new byte[8192]);

    [OneTimeTearDown]
    public void RemoveFile() => s_file.Dispose();

    [TestCaseSource(nameof(Calls))]
    public void Call_OfAClosedDescriptor_ThrowsAndTouchesNoOtherFile(string name)
    {
        (FileDescriptor closed, Action use) = s_calls[name]();
        closed.Dispose();
        using var others = new OtherFiles();
        Assert.That(() => use(), Throws.TypeOf<ObjectDisposedException>());
        others.AssertUntouched();
    }

    [Test]
    public void Hold_DisposedMeanwhile_StaysOpenUntilItIsLetGo()
    {
        FileDescriptor descriptor = Null();
        int number;
        using (HeldDescriptor held = descriptor.Hold())
        {
            number = held.Number;
            descriptor.Dispose();
            Assert.That(LibC.fcntl(number, LibC.F_GETFD), Is.GreaterThanOrEqualTo(0));
        }
        Assert.That(descriptor.IsClosed);
    }

    [Test]
    public void Hold_LetGoTwice_LetsGoOnce()
    {
        using FileDescriptor descriptor = Null();
        HeldDescriptor held = descriptor.Hold();
        held.Dispose();
        held.Dispose();
        Assert.That(LibC.fcntl(descriptor.Number, LibC.F_GETFD), Is.GreaterThanOrEqualTo(0));
    }

    [Test]
    public void Poll_ClosedDescriptor_IsInvalidAtOnce()
    {
        using EventFd open = new();
        var closed = new EventFd();
        PollEntry[] entries = [new(open, PollEvents.Readable), new(closed, PollEvents.Readable), new(null, PollEvents.Readable)];
        closed.Dispose();
        using var others = new OtherFiles();
        open.Signal();
        Assert.That(Poll.Wait(entries, -1), Is.EqualTo(2));
        Assert.That(entries.Select(entry => entry.Happened), Is.EqualTo(new[] { PollEvents.Readable, PollEvents.Invalid, PollEvents.None }));
        open.Drain();
        Assert.That(Task.Run(() => Poll.Wait(entries, -1)).Wait(TimeSpan.FromSeconds(30)), "it waits for others, for ever");
    }

    [TestCase(3)]
    [TestCase(40)]
    public void Poll_Many_AreAsTheKernelSays(int count)
    {
        EventFd[] descriptors = [.. Enumerable.Range(0, count).Select(_ => new EventFd())];
        descriptors[^1].Signal();
        PollEntry[] entries = [.. descriptors.Select(descriptor => new PollEntry(descriptor, PollEvents.Readable))];
        Assert.That(Poll.Wait(entries, -1), Is.EqualTo(1));
        Assert.That(entries[^1].Happened, Is.EqualTo(PollEvents.Readable));
        Assert.That(entries[..^1].Select(entry => entry.Happened), Has.All.EqualTo(PollEvents.None));
        long before = GC.GetAllocatedBytesForCurrentThread();
        Poll.Wait(entries, -1);
        Assert.That(GC.GetAllocatedBytesForCurrentThread(), Is.EqualTo(before), "a ring's thread waits in this way");
        foreach (EventFd descriptor in descriptors)
            descriptor.Dispose();
    }

    [Test]
    public void Signal_OpenDescriptor_AllocatesNothing()
    {
        using var descriptor = new EventFd();
        descriptor.Signal();
        long before = GC.GetAllocatedBytesForCurrentThread();
        descriptor.Signal();
        descriptor.Drain();
        Assert.That(GC.GetAllocatedBytesForCurrentThread(), Is.EqualTo(before));
    }

    [Test]
    public void Descriptor_NegativeNumber_IsRefused() =>
        Assert.That(() => new FileDescriptor(-1), Throws.TypeOf<ArgumentOutOfRangeException>());

    [Test]
    public void Mapping_Disposed_CannotBeUsed()
    {
        using FileDescriptor file = MemFd.Create("test", 8192);
        MemoryMapping mapping = MemoryMapping.Map(file, 8192, MappingAccess.SharedReadWrite);
        mapping.Dispose();
        Assert.Multiple(() =>
        {
            Assert.That(() => Touch(mapping), Throws.TypeOf<ObjectDisposedException>());
            Assert.That(() => mapping.Insert(0, 4096, file, 0, MappingAccess.SharedReadWrite), Throws.TypeOf<ObjectDisposedException>());
            Assert.That(() => mapping.Remove(0, 4096), Throws.TypeOf<ObjectDisposedException>());
            Assert.That(() => mapping.Replace(file, 0), Throws.TypeOf<ObjectDisposedException>());
            Assert.That(() => mapping.Populate(0, 4096), Throws.TypeOf<ObjectDisposedException>());
            Assert.That(mapping.Discard, Throws.TypeOf<ObjectDisposedException>());
            Assert.That(mapping.LeaveOutOfCoreDumps, Throws.TypeOf<ObjectDisposedException>());
            Assert.That(mapping.PreferHugePages, Throws.TypeOf<ObjectDisposedException>());
            Assert.That(() => mapping.TryCollapse(0, 4096), Throws.TypeOf<ObjectDisposedException>());
        });
        var buffer = new NativeBuffer(16);
        buffer.Dispose();
        Assert.That(() => buffer.Address, Throws.TypeOf<ObjectDisposedException>());
        Assert.That(() => buffer.AsSpan<byte>().Length, Throws.TypeOf<ObjectDisposedException>());
        using RegularFile regular = RegularFile.OpenRead(FilePath());
        MappedFile view = regular.Map();
        view.Dispose();
        Assert.That(() => view.Bytes.Length, Throws.TypeOf<ObjectDisposedException>());

        static unsafe byte Touch(MemoryMapping mapping) => *mapping.Pointer;
    }

    private static (FileDescriptor, Action) Of<T>(T descriptor, Action<T> use)
        where T : FileDescriptor => (descriptor, () => use(descriptor));

    private static FileDescriptor Null() => FileDescriptor.Open("/dev/null", OpenMode.ReadWrite);

    private static UnixSocket Socket()
    {
        (UnixSocket one, UnixSocket other) = UnixSocket.Pair();
        other.Dispose();
        return one;
    }
}
