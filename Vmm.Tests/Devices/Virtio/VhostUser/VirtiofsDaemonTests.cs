using NUnit.Framework;
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

    private static FsOptions Options(string source, string sandbox = "chroot") =>
        new() { Tag = "work", Source = new FsSource(source, sandbox), Peer = new VhostUserPeer() };

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
        if (!Environment.IsPrivilegedProcess || !File.Exists("/usr/lib/qemu/virtiofsd"))
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

    [TestCase(true, "--fd=3 -f -o source=/a\\,b\\\\c -o sandbox=chroot")]
    [TestCase(false, "--fd=3 --shared-dir=/a,b\\c --sandbox=chroot")]
    public void Arguments_OfEitherProgram_AreItsOwn(bool isLegacy, string expected) => Assert.That(
        string.Join(' ', new VirtiofsProgram("/x", isLegacy).Arguments(new FsSource("/a,b\\c", "chroot"), 3)), Is.EqualTo(expected));

    [Test]
    public void Open_NoSuchDirectory_IsRefused() => Assert.That(
        () => Options("/nonexistent").Open(_events),
        Throws.InstanceOf<VhostException>().With.Message.EqualTo("--fs tag=work: /nonexistent is no directory: make it first, or give another"));

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
        new("--fs tag=work", VirtiofsProgram.For("--fs tag=work", new FsSource(Share, sandbox)), _events);

    private static bool IsListening(BackendDaemon daemon)
    {
        int error = UnixSocket.TryConnect(daemon.SocketPath, out UnixSocket? socket);
        socket?.Dispose();
        return error == 0;
    }
}
