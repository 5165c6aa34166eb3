using System.Diagnostics;
using NUnit.Framework;
using Tmds.Linux;
using Vmm.Cli;
using Vmm.Devices.Virtio.VhostUser;
using Vmm.Tests.Conformance;
using Vmm.Tests.Devices.Backends.Block;
using Vmm.Tests.Fakes;
using Vmm.Tests.Integration;
using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Tests.Devices.Virtio.VhostUser;

/// <summary>Back-ends of our own as <c>vmm run</c> starts them, killed and started again: what they serve is theirs all the time, and what is to happen once happens once.</summary>
public sealed class RestartedBackendTests : VmmTest
{
    private const int Sector = BlockClient.SectorSize;

    private EventLoop _events = null!;

    [SetUp]
    public void MakeEvents()
    {
        // The just-in-time compiler needs more than a confined back-end may do.
        if (!VmmProcess.IsNative)
            Assert.Ignore("needs the native vmm: set VMM_BINARY");
        _events = new EventLoop();
    }

    [TearDown]
    public void EndEvents() => _events?.Dispose();

    [Test]
    public void Disk_BackendsThatAreKilled_LeaveTheImageToNobodyElse([Values] bool readOnly)
    {
        using var image = new Image();
        Run($"path={image.Path},queues=1,readonly={(readOnly ? "on" : "off")}", (daemon, guest) =>
        {
            var disk = new BlockClient(guest.Heap, guest.Queues[0]);
            using var others = new Others(() => DiskFile.Open(image.Path, readOnly: false, direct: false, patience: 0));
            for (int kill = 1; kill <= 3; kill++)
            {
                Kill(daemon);
                guest.WaitUntilRestored(kill);
                if (readOnly)
                    Assert.That(disk.Read(0, Sector), Is.EqualTo(image.Original[..Sector]));
                else
                    disk.Write(kill, new byte[Sector]);
            }
            Assert.That(others.End(), Is.Zero, "so often somebody else had it");
        });
        DiskFile.Open(image.Path, readOnly: false, direct: false).Dispose();
    }

    [Test]
    public void Disk_BackendThatIsKilled_LeavesTheImageToNoReaderEither()
    {
        using var image = new Image();
        Run($"path={image.Path},queues=1", (daemon, guest) =>
        {
            using var others = new Others(() => DiskFile.Open(image.Path, readOnly: true, direct: false, patience: 0));
            Kill(daemon);
            guest.WaitUntilRestored(1);
            Assert.That(others.End(), Is.Zero, "so often somebody else had it");
        });
    }

    // As the back-end of another vmm waits for it.
    [Test]
    public void Disk_AnotherBackendWaitsForTheImage_ItDoesNotGetIt()
    {
        using var image = new Image();
        Run($"path={image.Path},queues=1", (daemon, guest) =>
        {
            VmmProcess other = StartVmm("backend", "blk", "--socket-path", Path.Combine(Scratch, "socket"), "--path", image.Path);
            Eventually.True(() => ProcFs.Descriptors(other.Id).Contains(Path.GetFileName(image.Path)), () => $"it does not open the image\n{other.Errors}");
            Kill(daemon);
            VmmResult result = other.WaitForEnd();
            Assert.That(result.ExitCode, Is.EqualTo(1), result.Summary);
            Assert.That(result.Errors, Does.Contain($"cannot lock {image.Path}"));
            guest.WaitUntilRestored(1);
            new BlockClient(guest.Heap, guest.Queues[0]).Write(1, new byte[Sector]);
        });
    }

    [Test]
    public void Disk_OfTwoGuestsThatRead_GoesOnInBoth()
    {
        using var image = new Image();
        string text = $"path={image.Path},queues=1,readonly=on";
        Run(text, (first, _) => Run(text, (second, guest) =>
        {
            Kill(first);
            Kill(second);
            guest.WaitUntilRestored(1);
            Assert.That(new BlockClient(guest.Heap, guest.Queues[0]).Read(0, Sector), Is.EqualTo(image.Original[..Sector]));
        }));
    }

    [Test]
    public void Disk_BlockDevice_IsNobodyElsesMeanwhile()
    {
        using var image = new Image();
        if (LoopDevice.TryAttach(image.Path, out LoopDevice? loop) is string reason)
        {
            Assert.Ignore(reason);
            return;
        }
        using (loop)
        {
            Run($"path={loop!.Path},queues=1", (daemon, guest) =>
            {
                // As mount(2) and mkfs do.
                using var others = new Others(() => OpenExclusively(loop.Path));
                Kill(daemon);
                guest.WaitUntilRestored(1);
                new BlockClient(guest.Heap, guest.Queues[0]).Write(1, new byte[Sector]);
                Assert.That(others.End(), Is.Zero, "so often somebody else had it");
            });
            OpenExclusively(loop.Path).Dispose();
        }
    }

    [Test]
    public void Disk_AnotherImageInItsPlace_IsLeftAloneUntilTheGuestsIsBack([Values("on", "off")] string locked)
    {
        using Image image = new(), other = new();
        string aside = image.Path + ".aside";
        DateTime before = File.GetLastWriteTimeUtc(other.Path);
        Run($"path={image.Path},queues=1,lock={locked}", (daemon, guest) =>
        {
            var disk = new BlockClient(guest.Heap, guest.Queues[0]);
            string id = disk.GetId();
            File.Move(image.Path, aside);
            File.Move(other.Path, image.Path);
            Kill(daemon);
            disk.SubmitWrite(1, new byte[Sector]);
            string expected = $"{image.Path} is another file than the guest's disk: have that path lead to the guest's disk again, and the guest goes on";
            Eventually.True(() => daemon.Failure?.Contains(expected, StringComparison.Ordinal) == true, () => daemon.Failure ?? "it runs");
            Thread.Sleep(1500);     // and the next one is told the same
            Assert.That(image.Content, Is.EqualTo(other.Original));
            Assert.That(File.GetLastWriteTimeUtc(image.Path), Is.EqualTo(before));
            Assert.That(guest.Told, Does.Not.Contain("lost"));

            File.Move(image.Path, other.Path);
            File.Move(aside, image.Path);
            guest.WaitUntilRestored(1);
            Assert.That(disk.Complete().Status, Is.EqualTo(BlockClient.Ok));
            Assert.That(disk.GetId(), Is.EqualTo(id));
        });
        Assert.That(image.Content.AsSpan(Sector, Sector).IndexOfAnyExcept((byte)0), Is.Negative);
    }

    [Test]
    public void Disk_ThatSomebodyElseHas_IsRefusedBeforeItsBackendStarts()
    {
        using var image = new Image();
        using DiskFile other = DiskFile.Open(image.Path, readOnly: false, direct: false);
        Assert.That(() => new BackendDaemon("--disk path=x", ProgramOf("--disk", $"path={image.Path}"), _events), Throws.InstanceOf<VhostException>().With.Message.EqualTo(
            $"--disk path=x: cannot lock {image.Path}: Resource temporarily unavailable (errno 11): somebody else has it open; one may write, or several read it: end that program first"));
    }

    [TestCase("/nonexistent/disk", "cannot open /nonexistent/disk: No such file or directory (errno 2): nothing is there, or its directory is missing: make it first, or give another")]
    [TestCase("/dev/null", "/dev/null is neither a file nor a block device: give a raw image or a block device")]
    public void Disk_ThatIsNone_IsRefusedBeforeItsBackendStarts(string path, string message) => Assert.That(
        () => new BackendDaemon("--disk path=x", ProgramOf("--disk", $"path={path}"), _events), Throws.InstanceOf<VhostException>().With.Message.EqualTo($"--disk path=x: {message}"));

    // Nobody keeps the image for it.
    [Test]
    public void KeptDisk_ThatNobodyKeeps_IsRefused()
    {
        using var image = new Image();
        string key;
        using (DiskFile disk = DiskFile.Open(image.Path, readOnly: false, direct: false))
            key = disk.Key;
        VmmResult result = StartVmm("backend", "blk", "--socket-path", Path.Combine(Scratch, "socket"), "--path", image.Path, "--kept", key).WaitForEnd();
        Assert.That(result.ExitCode, Is.EqualTo(1), result.Summary);
        Assert.That(result.Errors, Does.Contain("or nobody keeps it locked"));
    }

    // A VMM that its guest has taken over cannot write it by this descriptor.
    [Test]
    public void Keep_ImageToWrite_IsLockedAndOpenToReadOnly()
    {
        using var image = new Image();
        using DiskFile keeper = DiskFile.Keep(image.Path, readOnly: false, isLocked: true);
        string flags = File.ReadLines($"/proc/self/fdinfo/{keeper.Number}").Single(line => line.StartsWith("flags:", StringComparison.Ordinal)).Trim();
        Assert.That(flags, Does.EndWith("0"), "O_RDONLY");
        Assert.That(() => DiskFile.Open(image.Path, readOnly: true, direct: false, patience: 0), Throws.TypeOf<ErrnoException>(), "it is the lock of one who writes");
    }

    // An io_uring of a process that was killed writes for a moment longer.
    [Test]
    public void KeptDisk_ThatABackendBeforeStillWrites_IsWaitedFor()
    {
        using var image = new Image();
        using DiskFile keeper = DiskFile.Keep(image.Path, readOnly: false, isLocked: true);
        DiskFile first = DiskFile.Open(image.Path, readOnly: false, direct: false, DiskLocking.Kept, key: keeper.Key);
        var second = Task.Run(() => DiskFile.Open(image.Path, readOnly: false, direct: false, DiskLocking.Kept, patience: 60_000, keeper.Key));
        Assert.That(second.Wait(200), Is.False, () => second.Exception?.ToString() ?? "it was opened twice");
        first.Dispose();
        Assert.That(second.Wait(TimeSpan.FromSeconds(60)), Is.True);
        second.Result.Dispose();
    }

    // Its keeper may end first.
    [Test]
    public void KeptDisk_KeeperIsGone_IsLockedAsBefore()
    {
        using var image = new Image();
        DiskFile keeper = DiskFile.Keep(image.Path, readOnly: false, isLocked: true);
        using DiskFile disk = DiskFile.Open(image.Path, readOnly: false, direct: false, DiskLocking.Kept, key: keeper.Key);
        keeper.Dispose();
        Assert.That(() => DiskFile.Open(image.Path, readOnly: false, direct: false, patience: 0), Throws.TypeOf<ErrnoException>());
        Assert.That(() => DiskFile.Open(image.Path, readOnly: true, direct: false, patience: 0), Throws.TypeOf<ErrnoException>());
    }

    [Test]
    public void Console_FileThatIsEmptiedFirst_IsEmptiedOnce()
    {
        string file = Path.Combine(Scratch, "console.log");
        File.WriteAllText(file, "of an earlier guest\n");
        using var daemon = new BackendDaemon("--console", ProgramOf("--console", $"file={file},truncate=on"), _events);
        for (int life = 0; life < 3; life++)
        {
            daemon.Start();
            Assert.That(daemon.TryConnect(daemon.SocketPath, out UnixSocket? socket), Is.Zero);
            using var frontEnd = new FrontEndDriver(socket!);
            frontEnd.Get(VhostUserRequest.GetFeatures);
            File.AppendAllText(file, $"line {life}\n");
            Kill(daemon);
        }
        Assert.That(File.ReadAllText(file), Is.EqualTo("line 0\nline 1\nline 2\n"));
    }

    private void Run(string text, Action<BackendDaemon, PeerGuest> test)
    {
        using var daemon = new BackendDaemon("--disk", ProgramOf("--disk", text), _events);
        daemon.Start();
        using var guest = new PeerGuest(daemon.SocketPath, 1, change: options => options with
        {
            Connect = daemon.TryConnect,
            Respawn = daemon.Respawn,
            PeerProcessId = () => daemon.ProcessId,
            PeerEnded = daemon.Ended,
            CompletesRequests = true,
        });
        guest.Start(ulong.MaxValue);
        test(daemon, guest);
    }

    private static DaemonProgram ProgramOf(string option, string text)
    {
        DaemonProgram program = RunOptionsReader.Read((RunOptions)Verbs.Parse(["run", "--kernel", "k", option, text])).Devices.Single() switch
        {
            BlockDeviceOptions disk => disk.Peer.Program!,
            GenericDeviceOptions other => other.Peer.Program!,
            _ => throw new NotSupportedException(option),
        };
        return program with
        {
            Path = VmmProcess.Command[0],
            Arguments = number => [.. VmmProcess.Command.Skip(1), .. program.Arguments(number).Skip(OwnProgram.Arguments.Length)],
        };
    }

    private static void Kill(BackendDaemon daemon)
    {
        using Process process = Process.GetProcessById(daemon.ProcessId);
        process.Kill();
    }

    private static unsafe FileDescriptor OpenExclusively(string path)
    {
        fixed (byte* name = FileDescriptor.NullTerminated(path))
        {
            int number = LibC.open(name, LibC.O_RDWR | LibC.O_EXCL | LibC.O_CLOEXEC);
            return number >= 0 ? new FileDescriptor(number) : throw ErrnoException.FromLastError($"cannot open {path}");
        }
    }

    /// <summary>A thread that tries to open a disk, again and again.</summary>
    private sealed class Others : IDisposable
    {
        private readonly Thread _thread;
        private volatile bool _isEnding;
        private int _opened;

        public Others(Func<IDisposable> open)
        {
            _thread = new Thread(() =>
            {
                while (!_isEnding)
                {
                    try
                    {
                        open().Dispose();
                        _opened++;
                    }
                    catch (IOException)
                    {
                        Thread.Sleep(1);
                    }
                }
            });
            _thread.Start();
        }

        /// <summary>How often it was opened.</summary>
        public int End()
        {
            _isEnding = true;
            _thread.Join();
            return _opened;
        }

        public void Dispose() => End();
    }
}
