using System.Diagnostics;
using NUnit.Framework;
using Vmm.Devices.Spawning;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.VhostUser;
using Vmm.Tests.Fakes;
using Vmm.Vhost;

using Vmm.Vhost.Native;

namespace Vmm.Tests.Devices.Virtio.VhostUser;

[NonParallelizable]   // an environment variable says where the socket is
public sealed class VirtiofsDaemonTests
{
    private string _directory = "";
    private string? _runtime;
    private EventLoop _events = null!;

    private const string Virtiofsd = "/usr/lib/qemu/virtiofsd";

    private static FsDeviceOptions Options(string source, string sandbox = "chroot") =>
        new() { Tag = "work", Source = new FsSource(source, sandbox, Virtiofsd), Peer = new VhostUserPeer() };

    [SetUp]
    public void MakeDirectories()
    {
        _runtime = Environment.GetEnvironmentVariable("XDG_RUNTIME_DIR");
        _directory = Directory.CreateTempSubdirectory("vmm-test-").FullName;
        Directory.CreateDirectory(Path.Combine(_directory, "share, and \\more"));
        Environment.SetEnvironmentVariable("XDG_RUNTIME_DIR", Directory.CreateDirectory(Path.Combine(_directory, "run")).FullName);
        _events = new EventLoop();
    }

    [TearDown]
    public void RemoveDirectories()
    {
        _events.Dispose();
        Environment.SetEnvironmentVariable("XDG_RUNTIME_DIR", _runtime);
        Directory.Delete(_directory, recursive: true);
    }

    private string Share => Path.Combine(_directory, "share, and \\more");

    private string[] Sockets => Directory.GetFileSystemEntries(Path.Combine(_directory, "run"));

    private static void RequireDaemon()
    {
        if (!Environment.IsPrivilegedProcess || !File.Exists(Virtiofsd))
            Assert.Ignore("virtiofsd is missing, or this is not root: install qemu-system-common");
    }

    [TestCase("chroot")]
    [TestCase("namespace")]
    public void Open_Directory_StartsADaemonThatIsGoneAfterwards(string sandbox)
    {
        RequireDaemon();
        using (VirtioDevice device = Options(Share, sandbox).Open(_events))
        {
            Assert.That(device.QueueCount, Is.EqualTo(2));
            string directory = Sockets.Single();
            Assert.That(new FileInfo(directory).UnixFileMode, Is.EqualTo(UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute));
        }
        Assert.That(Sockets, Is.Empty);
    }

    [TestCase(true, "--fd=3 -f -o log_level=warn -o source=/a\\,b\\\\c -o sandbox=chroot")]
    [TestCase(false, "--fd=3 --shared-dir=/a,b\\c --sandbox=chroot")]
    public void Arguments_OfEitherProgram_AreItsOwn(bool isLegacy, string expected) => Assert.That(
        string.Join(' ', new VirtiofsProgram("/x", isLegacy).Arguments(new FsSource("/a,b\\c", "chroot", "/x"), 3)), Is.EqualTo(expected));

    [Test]
    public void Open_NoSuchDirectory_IsRefused() => Assert.That(
        () => Options("/nonexistent").Open(_events),
        Throws.InstanceOf<VhostException>().With.Message.EqualTo("--fs tag=work: /nonexistent is no directory: make it first, or give another"));

    [Test]
    public void Open_NoSuchDaemon_IsRefused() => Assert.That(
        () => (Options(Share) with { Source = new FsSource(Share, "chroot", "/nonexistent") }).Open(_events),
        Throws.InstanceOf<VhostException>().With.Message.EqualTo(
            "--fs tag=work: there is no program /nonexistent: leave daemon= out for our own, or give the path of a virtiofsd"));

    [Test]
    public void Open_DaemonThatEndsAtOnce_IsNotWaitedFor()
    {
        long start = Stopwatch.GetTimestamp();
        Assert.That(
            () => (Options(Share) with { Source = new FsSource(Share, "chroot", "/bin/sleep") }).Open(_events),
            Throws.InstanceOf<VhostException>().With.Message.StartsWith("--fs tag=work: /bin/sleep ended with status 1: "));
        Assert.That(Stopwatch.GetElapsedTime(start), Is.LessThan(TimeSpan.FromSeconds(20)));
    }

    [Test]
    public void Dispose_NobodyHasConnected_EndsItAtOnce()
    {
        using ISpawner spawner = new LocalSpawner();
        var program = new DaemonProgram("sleep", "/bin/sleep", _ => ["600"]);
        using var daemon = new BackendDaemon("--fs tag=work", program, _events, spawner);
        daemon.Start();
        long start = Stopwatch.GetTimestamp();
        daemon.Dispose();
        Assert.That(Stopwatch.GetElapsedTime(start), Is.LessThan(TimeSpan.FromSeconds(1.9)));
        Assert.That(Sockets, Is.Empty);
    }

    [Test]
    public void Output_ItSpeaksJustBeforeItIsSeenToHaveEnded_NothingIsLost()
    {
        string? said = null;
        var program = new DaemonProgram("x", "/x", _ => []) { FirstLine = line => said = line };
        using var daemon = new BackendDaemon("--fs tag=work", program, _events, new OneProcess(new LastWords("last words\n")));
        daemon.Start();

        Eventually.True(() => said is not null, () => "it is not heard");
        Assert.That(said, Is.EqualTo("last words"));
    }

    [TestCase(true, "[12.5] [ID: 1] fuse: something", "Warn")]
    [TestCase(false, "[2024-01-01T00:00:00Z WARN  virtiofsd::server] something", "Warn")]
    [TestCase(false, "[2024-01-01T00:00:00Z ERROR virtiofsd] something", "Error")]
    [TestCase(false, "[2024-01-01T00:00:00Z INFO  virtiofsd] something", "Info")]
    public void LevelOf_ALine_IsWhatTheProgramSays(bool isLegacy, string line, string expected) =>
        Assert.That(new VirtiofsProgram("/x", isLegacy).LevelOf(line).Name, Is.EqualTo(expected));

    [Test]
    public void Daemon_ThatCannotLive_SaysWhy()
    {
        RequireDaemon();
        using var daemon = Daemon("nonsense");
        daemon.Start();
        Eventually.True(() => daemon.Failure is not null, () => "it lives");
        Assert.That(daemon.Failure, Does.StartWith("/usr/lib/qemu/virtiofsd ended with status 1: ").And.Contain("sandbox"));
        Eventually.True(() => !IsListening(daemon), () => "it seems to listen");
    }

    [Test]
    public void Respawn_JustStarted_WaitsASecond()
    {
        RequireDaemon();
        using var daemon = Daemon("chroot");
        daemon.Start();
        Assert.That(IsListening(daemon), "at first");   // and with this connection it ends
        Eventually.True(() => !IsListening(daemon), () => "it goes on");
        daemon.Respawn();
        Assert.That(IsListening(daemon), Is.False, "at once");
        Eventually.True(
            () =>
            {
                daemon.Respawn();
                return IsListening(daemon);
            },
            () => "it was not started again");
    }

    private BackendDaemon Daemon(string sandbox) =>
        new("--fs tag=work", VirtiofsProgram.For("--fs tag=work", new FsSource(Share, sandbox, Virtiofsd)), _events);

    private static bool IsListening(BackendDaemon daemon)
    {
        int error = UnixSocket.TryConnect(daemon.SocketPath, out UnixSocket? socket);
        socket?.Dispose();
        return error == 0;
    }
}
