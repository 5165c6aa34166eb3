using System.Diagnostics;
using System.Text.Json;
using NUnit.Framework;
using Tmds.Linux;
using Vmm.Tests.Fakes;
using Vmm.Tests.Integration.Linux.Devices;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Tests.Integration.Backends;

public class BackendCommandTests : BackendTest
{
    [TestCase("blk", "block")]
    [TestCase("net", "net")]
    [TestCase("rng", "rng")]
    [TestCase("console", "console")]
    [TestCase("vsock", "vsock")]
    [TestCase("fs", "fs")]
    public void PrintCapabilities_AnyDevice_IsJsonWhateverElseIsSaid(string device, string type)
    {
        VmmResult result = StartVmm("backend", device, "--print-capabilities", "--nonsense", "--fd").WaitForEnd();
        Assert.That((result.ExitCode, result.Errors), Is.EqualTo((0, "")), result.Summary);
        using var json = JsonDocument.Parse(result.Output);
        Assert.That(json.RootElement.GetProperty("type").GetString(), Is.EqualTo(type));
        string[] features = json.RootElement.TryGetProperty("features", out JsonElement list)
            ? [.. list.EnumerateArray().Select(feature => feature.GetString()!)] : [];
        Assert.That(features, Is.EqualTo(device switch { "blk" => ["read-only", "blk-file"], "fs" => ["migrate-precopy", "separate-options"], _ => Array.Empty<string>() }));
    }

    [TestCase(15)]
    [TestCase(2)]
    public void Signal_WithAFrontEnd_EndsItAtOnce(int signal)
    {
        VmmProcess process = StartBackend("rng");
        FrontEndDriver frontEnd = ConnectFrontEnd();
        frontEnd.Start();
        long start = Stopwatch.GetTimestamp();
        process.Signal(signal);
        VmmResult result = process.WaitForEnd();
        Assert.That(Stopwatch.GetElapsedTime(start), Is.LessThan(TimeSpan.FromSeconds(5)));
        Assert.That((result.ExitCode, result.Output, result.Errors), Is.EqualTo((128 + signal, "", "")), result.Summary);
        Assert.That(File.Exists(SocketPath), Is.EqualTo(VmmProcess.IsNative), "a confined process may remove nothing");
    }

    [Test]
    public void Truncate_SocketThatCannotBe_LeavesTheFileAsItIs()
    {
        string path = Path.Combine(Scratch, "log");
        File.WriteAllText(path, "before");
        VmmResult refused = StartVmm("backend", "console", "--socket-path", "/nowhere/socket", "--path", path, "--truncate").WaitForEnd();
        Assert.That((refused.ExitCode, File.ReadAllText(path)), Is.EqualTo((1, "before")), refused.Summary);
        StartBackend("console", "--path", path, "--truncate");
        Eventually.True(() => File.ReadAllText(path).Length == 0, () => File.ReadAllText(path));
    }

    [TestCase(0, "is empty: the guest has a disk without a block")]
    [TestCase(511, "has 511 bytes: the last 511 are no whole block, and no part of the disk")]
    public void Image_WithoutABlock_IsTold(int size, string expected)
    {
        string image = Path.Combine(Scratch, "disk.img");
        File.WriteAllBytes(image, new byte[size]);
        VmmProcess process = StartBackend("blk", "--path", image);
        process.Signal(LibC.SIGTERM);
        Assert.That(process.WaitForEnd().Errors, Does.Contain($"{image} {expected}\n"));
    }

    [Test]
    public void Directory_ThatItsUserMayNotRead_IsTold()
    {
        if (!Environment.IsPrivilegedProcess || !VmmProcess.IsNative)
            Assert.Ignore("this test becomes another user, who gets a copy of the native binary");
        (string open, string closed) = (Path.Combine(Scratch, "open"), Path.Combine(Scratch, "closed"));
        HostCommand.Run("sh", "-c", $"mkdir {open} {closed} && cp {VmmProcess.Command[0]} {Scratch}/copy && chmod 700 {closed} && chmod 777 {open} && chmod a+x {Scratch} {Scratch}/copy");
        foreach (string directory in new[] { open, closed })
        {
            (_, string output) = HostCommand.TryRun("timeout", "-s", "TERM", "1", "setpriv", "--reuid=54321", "--regid=54321", "--clear-groups",
                $"{Scratch}/copy", "backend", "fs", "--socket-path", $"{open}/socket", "--shared-dir", directory);
            Assert.That(output.Contains($"{directory}: the back-end's user may not read or enter it", StringComparison.Ordinal), Is.EqualTo(directory == closed), output);
        }
    }

    [Test]
    public void Tap_ThatIsNone_NamesTheOptionOnce()
    {
        VmmResult result = StartVmm("backend", "net", "--socket-path", SocketPath, "--tap", "lo").WaitForEnd();
        Assert.That(result.ExitCode, Is.EqualTo(1), result.Summary);
        Assert.That(result.Errors, Does.StartWith("vmm: --tap: lo: "));
    }

    // SIGUSR1 has it look whether what it serves has changed.
    [Test]
    public void Refresh_AnyDevice_GoesOn([Values("blk", "rng")] string device)
    {
        string image = Path.Combine(Scratch, "disk.img");
        File.WriteAllBytes(image, new byte[1 << 20]);
        VmmProcess process = StartBackend(device, device == "blk" ? ["--path", image] : []);
        FrontEndDriver frontEnd = ConnectFrontEnd();
        frontEnd.Start();
        for (int i = 0; i < 3; i++)
        {
            process.Signal(LibC.SIGUSR1);
            Assert.That(frontEnd.Get(VhostUserRequest.GetFeatures), Is.Not.Zero);
        }
        process.Signal(LibC.SIGTERM);
        Assert.That(process.WaitForEnd().ExitCode, Is.EqualTo(128 + 15));
    }

    [Test]
    public void SocketPath_LeftBehind_IsTakenOver()
    {
        VmmProcess first = StartBackend("rng");
        first.Signal(LibC.SIGKILL);
        first.WaitForEnd();
        Assert.That(File.Exists(SocketPath));
        StartBackend("rng");
        Assert.That(ConnectFrontEnd().Get(VhostUserRequest.GetFeatures), Is.Not.Zero);
    }

    [Test]
    public void SocketPath_InUse_IsRefused()
    {
        StartBackend("rng");
        VmmResult second = StartVmm("backend", "rng", "--socket-path", SocketPath).WaitForEnd();
        Assert.That((second.ExitCode, second.Errors), Is.EqualTo((1,
            $"vmm: --socket-path: cannot listen on {SocketPath}: Address already in use (errno 98): another process listens there; give another path or stop it\n")));
    }

    [Test]
    public void FrontEnd_Leaves_TheNextIsServed()
    {
        StartBackend("rng");
        for (int i = 0; i < 3; i++)
        {
            using var frontEnd = new FrontEndDriver(UnixSocket.Connect(SocketPath));
            frontEnd.Start();
        }
    }

    [Test]
    public void Client_FrontEndComesLater_IsConnectedTo()
    {
        VmmProcess process = StartVmm("backend", "rng", "--client", "--socket-path", SocketPath, "--log-level", "error");
        using UnixListener listener = UnixListener.Listen(SocketPath);
        for (int i = 0; i < 2; i++)
        {
            UnixSocket? socket = null;
            Eventually.True(() => (socket = listener.TryAccept()) is not null, () => "nobody connects");
            using var frontEnd = new FrontEndDriver(socket!);
            frontEnd.Start();
        }
        process.Signal(LibC.SIGTERM);
        Assert.That(process.WaitForEnd().ExitCode, Is.EqualTo(128 + 15));
    }

    [Test]
    public void Client_PathOfAnotherKind_IsNotTriedAgain()
    {
        string path = Path.Combine(Scratch, "file");
        File.WriteAllBytes(path, []);
        VmmProcess process = StartVmm("backend", "rng", "--client", "--socket-path", path);
        Assert.That(process.WaitForEnd(), Is.EqualTo(
            new VmmResult(1, "", $"vmm: --socket-path: cannot connect to {path}: Socket operation on non-socket (errno 88): give the path of the other side's socket\n")));
    }

    [Test]
    public void Fd_ConnectedSocket_IsServedUntilItsEnd()
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using ChildProcess process = StartInheriting(theirs);
        theirs.Dispose();
        using (var frontEnd = new FrontEndDriver(ours))
            frontEnd.Start();
        Assert.That(process.WaitForEnd(20_000));
        Assert.That(process.End, Is.EqualTo("status 0"));
    }

    [Test]
    public void Fd_ListeningSocket_IsServedAgainAndAgain()
    {
        using UnixListener listener = UnixListener.Listen(SocketPath);
        using ChildProcess process = StartInheriting(listener);
        for (int i = 0; i < 2; i++)
        {
            using var frontEnd = new FrontEndDriver(UnixSocket.Connect(SocketPath));
            frontEnd.Start();
        }
        Assert.That(process.End, Is.Null);
    }

    [Test]
    public void Stream_NobodyListens_SaysWhatToDo()
    {
        string path = Path.Combine(Scratch, "dead");
        using (UnixListener dead = UnixListener.Listen(path))
            dead.LeaveFile();

        VmmResult result = StartVmm("backend", "net", "--socket-path", SocketPath, "--stream", path).WaitForEnd();

        Assert.That((result.ExitCode, result.Errors), Is.EqualTo(
            (1, $"vmm: --stream: cannot connect to {path}: Connection refused (errno 111): nobody listens there: start the program that listens first, or give another\n")));
    }

    [Test]
    public void Fd_NoSocket_IsRefused()
    {
        VmmResult result = StartVmm("backend", "rng", "--fd", "0").WaitForEnd();
        Assert.That((result.ExitCode, result.Errors), Is.EqualTo((1, "vmm: --fd: fd 0 is no connected Unix stream socket: Invalid argument (errno 22): give the number of a socket that was opened for this process\n")));
    }

    [TestCase("--path: cannot open /nonexistent/disk: No such file or directory (errno 2): nothing is there, or its directory is missing: make it first, or give another", "blk", "--path", "/nonexistent/disk")]
    [TestCase("--source: cannot open /nonexistent/random: No such file or directory (errno 2): nothing is there, or its directory is missing: make it first, or give another", "rng", "--source", "/nonexistent/random")]
    [TestCase("--source: cannot use /proc: Is a directory (errno 21): give a device or a file", "rng", "--source", "/proc")]
    [TestCase("--path: cannot open /nonexistent/file: No such file or directory (errno 2): make its directory first, or give another path", "console", "--path", "/nonexistent/file")]
    [TestCase("--path: cannot open /proc: Is a directory (errno 21): give the path of a file", "console", "--path", "/proc")]
    [TestCase("--path: cannot open /proc: Is a directory (errno 21): give a raw image or a block device", "blk", "--path", "/proc")]
    [TestCase("--path: /dev/null is neither a file nor a block device: give a raw image or a block device", "blk", "--path", "/dev/null")]
    [TestCase("--shared-dir: /nonexistent/dir is no directory: make it first, or give another", "fs", "--shared-dir", "/nonexistent/dir")]
    [TestCase("--shared-dir: /proc/version is no directory: make it first, or give another", "fs", "--shared-dir", "/proc/version")]
    [TestCase("--uds-path: cannot listen on /nonexistent/vsock: No such file or directory (errno 2): make its directory first, or give another path", "vsock", "--uds-path", "/nonexistent/vsock")]
    [TestCase("--socket-udp: cannot use 192.0.2.1:5000", "net", "--socket-udp", "local=192.0.2.1:5000,remote=192.0.2.2:5000")]
    public void Device_ThatCannotBeHad_IsOneLine(string expected, string device, params string[] options)
    {
        VmmResult result = StartVmm(["backend", device, "--socket-path", SocketPath, .. options]).WaitForEnd();
        Assert.That(result.ExitCode, Is.EqualTo(1), result.Summary);
        Assert.That(result.Errors, Does.StartWith($"vmm: {expected}").And.EndsWith("\n"));
        Assert.That(result.Errors.Count(character => character == '\n'), Is.EqualTo(1));
        Assert.That(File.Exists(SocketPath), Is.False);
    }

    [Test]
    public void Console_OnPty_SaysWhichAndIsUsable()
    {
        VmmProcess process = StartBackend("console", "--path", "pty");
        process.WaitForOutput("\n");
        string path = process.Output.TrimEnd('\n');
        Assert.That(path, Does.Match("^/dev/pts/[0-9]+$"));
        using FileDescriptor user = FileDescriptor.Open(path, OpenMode.ReadWriteNonBlocking);
        FrontEndDriver frontEnd = ConnectFrontEnd();
        Assert.That(frontEnd.Get(VhostUserRequest.GetFeatures) & 1, Is.EqualTo(1), "VIRTIO_CONSOLE_F_SIZE");
    }

    private ChildProcess StartInheriting(FileDescriptor socket) => Keep(ChildProcess.Start(
        VmmProcess.IsNative ? VmmProcess.Command[0] : Environment.ProcessPath is { } path && Path.GetFileName(path) == "dotnet" ? path : "/usr/bin/dotnet",
        [.. VmmProcess.Command.Skip(1), "backend", "rng", "--fd", $"{ChildProcess.InheritedNumber}"], socket));
}
