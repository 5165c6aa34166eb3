using System.Reflection;
using CommandLine;
using NUnit.Framework;
using Vmm.Cli;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.VhostUser;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Cli.Backend;

[NonParallelizable]   // the log level is one for the process
public class BackendOptionsTests
{
    private const string Socket = "--socket-path";

    [Test]
    public void Run_NoDevice_ListsTheDevicesAndIsWrongUsage()
    {
        (int exit, string output, string error) = Run(["backend"]);
        Assert.That(exit, Is.EqualTo(ExitCode.Usage));
        Assert.That(output, Is.Empty);
        Assert.That(error, Does.Contain("Usage: vmm backend DEVICE").And.Contain("\n  fs "));
    }

    [TestCase("backend", "--help")]
    [TestCase("backend", "help")]
    [TestCase("help", "backend")]
    public void Run_HelpOfBackend_ListsTheDevices(params string[] args)
    {
        (int exit, string output, string error) = Run(args);
        Assert.That((exit, error), Is.EqualTo((ExitCode.Success, "")));
        Assert.That(output, Does.Contain("Usage: vmm backend DEVICE"));
        foreach ((string name, _) in Verbs.Backends)
            Assert.That(output, Does.Contain($"\n  {name} "));
    }

    [Test]
    public void Run_HelpOfADevice_ListsItsOptionsAndSaysWhatIsConfined([Values("blk", "net", "rng", "console", "vsock", "fs")] string device)
    {
        foreach (string[] args in new string[][] { ["backend", device, "--help"], ["backend", "help", device], ["help", "backend", device] })
        {
            (int exit, string output, string error) = Run(args);
            Assert.That((exit, error), Is.EqualTo((ExitCode.Success, "")));
            Assert.That(output, Does.Contain($"Usage: vmm backend {device}").And.Contain("Landlock").And.Contain("seccomp"));
            foreach (PropertyInfo property in Verbs.Backends.Single(verb => verb.Name == device).Options.GetProperties())
            {
                if (property.GetCustomAttribute<OptionAttribute>() is { } option)
                    Assert.That(output, Does.Contain("  --" + option.LongName));
            }
        }
    }

    [TestCase("'tape' is not a device: choose one of blk, net, rng, console, vsock, fs (see vmm backend --help)", "tape")]
    [TestCase("--socket-path is missing: give a path, or an inherited socket by --fd", "rng")]
    [TestCase("--socket-path: '' is not a path", "rng", Socket, "")]
    [TestCase("--socket-path: given more than once (see vmm backend rng --help)", "rng", Socket, "s", Socket, "t")]
    [TestCase("--nonsense: unknown option (see vmm backend rng --help)", "rng", Socket, "s", "--nonsense")]
    [TestCase("'extra': unexpected argument: values follow an option (see vmm backend rng --help)", "rng", Socket, "s", "extra")]
    [TestCase("--source: its value is missing (see vmm backend rng --help)", "rng", Socket, "s", "--source")]
    [TestCase("--fd: cannot stand beside --socket-path: the socket is inherited, or it has a path", "rng", Socket, "s", "--fd", "3")]
    [TestCase("--fd: 'x' is not a number from 0 to 2147483647", "rng", "--fd", "x")]
    [TestCase("--client: cannot stand beside --fd: an inherited socket is connected already, or it listens", "rng", "--fd", "3", "--client")]
    [TestCase("--sandbox: 'perhaps' is not allowed: choose one of on, off, true, false", "rng", Socket, "s", "--sandbox", "perhaps")]
    [TestCase("--log-level: 'loud' is not allowed: choose one of off, error, warn, info, debug, trace", "rng", Socket, "s", "--log-level", "loud")]
    [TestCase("--max-bytes-per-second: '0' is not a number from 1 to 1099511627776", "rng", Socket, "s", "--max-bytes-per-second", "0")]
    [TestCase("--readonly: takes no value: leave the option out for off", "blk", Socket, "s", "--path", "p", "--readonly=off")]
    [TestCase("--once: takes no value: leave the option out for off", "rng", Socket, "s", "--once=false")]
    [TestCase("--tap: '' is not the name of an interface", "net", Socket, "s", "--tap", "")]
    [TestCase("--path is missing (see vmm backend console --help)", "console", Socket, "s")]
    [TestCase("--path: '' is not a path", "console", Socket, "s", "--path", "")]
    [TestCase("--path is missing (see vmm backend blk --help)", "blk", Socket, "s")]
    [TestCase("--blk-file: cannot stand beside --path: they say the same", "blk", Socket, "s", "--path", "a", "--blk-file", "b")]
    [TestCase("--queues: '65' is not a number from 1 to 64", "blk", Socket, "s", "--path", "a", "--queues", "65")]
    [TestCase("--lock: 'often' is not allowed: choose one of on, off, defer", "blk", Socket, "s", "--path", "a", "--lock", "often")]
    [TestCase("--engine: 'steam' is not allowed: choose one of auto, io_uring, threads", "blk", Socket, "s", "--path", "a", "--engine", "steam")]
    [TestCase("--serial: '123456789012345678901' is not 1 to 20 printable ASCII characters", "blk", Socket, "s", "--path", "a", "--serial", "123456789012345678901")]
    [TestCase("--serial: '' is not 1 to 20 printable ASCII characters", "blk", Socket, "s", "--path", "a", "--serial=")]
    [TestCase("--keep: has no effect with a file, which keeps all: leave it out", "console", Socket, "s", "--path", "log", "--keep", "64K")]
    [TestCase("--truncate: has no effect with --path pty: leave it out", "console", Socket, "s", "--path", "pty", "--truncate")]
    [TestCase("--stream: '' is not a path", "net", Socket, "s", "--stream=")]
    [TestCase("--tag: '' is empty: give the name by which the guest mounts the directory", "fs", Socket, "s", "--shared-dir", "/", "--tag=")]
    [TestCase("--uds-path: './s' is --socket-path, too: the front-end has one socket and programs of the host another", "vsock", Socket, "s", "--uds-path", "./s")]
    [TestCase("--uds-path is missing (see vmm backend vsock --help)", "vsock", Socket, "s")]
    [TestCase("--guest-connections: 'off' is not allowed: choose one of connect, accept", "vsock", Socket, "s", "--uds-path", "u", "--guest-connections", "off")]
    [TestCase("--guest-cid: '2' is not a number from 3 to 4294967294", "vsock", Socket, "s", "--uds-path", "u", "--guest-cid", "2")]
    [TestCase("--tap is missing: name a tap, or give two addresses by --socket-udp, a socket by --stream, or --user", "net", Socket, "s")]
    [TestCase("--tap: 'a/b' is not the name of an interface", "net", Socket, "s", "--tap", "a/b")]
    [TestCase("--socket-udp: cannot stand beside --tap: there is one wire", "net", Socket, "s", "--tap", "t", "--socket-udp", "local=1.2.3.4:5,remote=1.2.3.4:6")]
    [TestCase("--socket-udp: remote=ADDRESS:PORT is missing", "net", Socket, "s", "--socket-udp", "local=1.2.3.4:5")]
    [TestCase("--socket-udp: local='1.2.3.4' is not an address and a port, such as 127.0.0.1:5000 or [::1]:5000",
        "net", Socket, "s", "--socket-udp", "local=1.2.3.4,remote=1.2.3.4:6")]
    [TestCase("--socket-udp: remote='[::1]:6' is not of the same family as 1.2.3.4:5", "net", Socket, "s", "--socket-udp", "local=1.2.3.4:5,remote=[::1]:6")]
    [TestCase("--socket-udp: local='1.2.3.4:65535' leaves no port for each of 2 pairs of queues",
        "net", Socket, "s", "--queues", "2", "--socket-udp", "local=1.2.3.4:65535,remote=1.2.3.4:6")]
    [TestCase("--user: cannot stand beside --stream: there is one wire", "net", Socket, "s", "--user", "--stream", "s")]
    [TestCase("--host: has no effect without --user", "net", Socket, "s", "--stream", "s", "--host")]
    [TestCase("--vhost-user: has no effect without --user", "net", Socket, "s", "--stream", "s", "--vhost-user")]
    [TestCase("--vhost-user: only with --fd and --once: passt has one front-end", "net", Socket, "s", "--once", "--user", "--vhost-user")]
    [TestCase("--vhost-user: only with --fd and --once: passt has one front-end", "net", "--fd", "9", "--user", "--vhost-user")]
    [TestCase("--port: 'udp:127.0.0.1:1:1' needs --host: without it passt does not bring the answers back. The guest then reaches all that serves this host's 127.0.0.1",
        "net", Socket, "s", "--user", "--port", "udp:1:1")]
    [TestCase("--port: has no effect without --user", "net", Socket, "s", "--stream", "s", "--port", "1:1")]
    [TestCase("--port: '1' is not HOST:GUEST, two ports from 1 to 65535, such as 8080:80 or udp:5353:53", "net", Socket, "s", "--user", "--port", "1")]
    [TestCase("--queues: '2' is not possible: a stream has one pair", "net", Socket, "s", "--user", "--queues", "2")]
    [TestCase("--mtu: cannot stand beside --user: there it is 65520", "net", Socket, "s", "--user", "--mtu", "1500")]
    [TestCase("--mtu: '67' is not a number from 68 to 65535", "net", Socket, "s", "--tap", "t", "--mtu", "67")]
    [TestCase("--shared-dir is missing (see vmm backend fs --help)", "fs", Socket, "s")]
    [TestCase("--cache: 'some' is not allowed: choose one of auto, always, metadata, never", "fs", Socket, "s", "--shared-dir", "d", "--cache", "some")]
    [TestCase("--xattrmap: ':ok:' cannot be used: a rule ends without its ':'", "fs", Socket, "s", "--shared-dir", "d", "--xattrmap", ":ok:")]
    [TestCase("--no-xattr: cannot stand beside --xattrmap", "fs", Socket, "s", "--shared-dir", "d", "--no-xattr", "--xattrmap", ":map::user.virtiofs.:")]
    [TestCase("--no-xattr: cannot stand beside --posix-acl", "fs", Socket, "s", "--shared-dir", "d", "-o", "no_xattr,posix_acl")]
    [TestCase("--killpriv-v2: cannot stand beside --dax-window", "fs", Socket, "s", "--shared-dir", "d", "--dax-window", "1G", "--killpriv-v2")]
    [TestCase("--dax-window: '3M' is no size of a window: write a multiple of 2M, up to 64G", "fs", Socket, "s", "--shared-dir", "d", "--dax-window", "3M")]
    [TestCase("--translate-uid: 'map:1:2:0' is an empty range, or one that goes beyond 4294967295",
        "fs", Socket, "s", "--shared-dir", "d", "--translate-uid", "map:0:1000:1", "--translate-uid", "map:1:2:0")]
    [TestCase("--sandbox: 'perhaps' is not allowed: choose one of on, off, true, false, namespace, chroot, none",
        "fs", Socket, "s", "--shared-dir", "d", "--sandbox", "perhaps")]
    public void Run_WrongUsage_IsOneLine(string expected, params string[] args)
    {
        (int exit, string output, string error) = Run(["backend", .. args]);
        Assert.That((exit, output, error), Is.EqualTo((ExitCode.Usage, "", $"vmm: {expected}\n")));
    }

    [Test]
    public void Run_SocketPathThatIsTooLong_IsWrongUsage()
    {
        string path = new('p', UnixSocket.MaxPathBytes + 1);
        Assert.That(Run(["backend", "rng", Socket, path]), Is.EqualTo((ExitCode.Usage, "", $"vmm: --socket-path: '{path}' is too long: the path of a socket has at most 107 bytes\n")));
    }

    [Test]
    public void Vsock_PathWithoutRoomForAPort_IsRefused()
    {
        string path = new('p', UnixSocket.MaxPathBytes - 10);
        Assert.That(Run(["backend", "vsock", Socket, "s", "--uds-path", path]).Error, Does.Contain("is too long: with a port behind it"));
        Assert.That(() => Device<GenericDeviceOptions>("--vsock", $"cid=3,socket={path}"), Throws.TypeOf<UsageException>());
        Assert.That(() => Device<GenericDeviceOptions>("--vsock", $"cid=3,socket={path},guest_connections=accept"), Throws.Nothing, "there is no port behind it");
        Assert.That(
            () => Device<GenericDeviceOptions>("--vsock", $"cid=3,socket={path}{path},guest_connections=accept"),
            Throws.TypeOf<UsageException>().With.Message.EndsWith("is too long: a socket's path has at most 107 bytes"));
    }

    [TestCase("1", "path=/d", 1)]
    [TestCase("4", "path=/d", 4)]
    [TestCase("254", "path=/d", 8)]
    [TestCase("4", "path=/d,queues=2", 2)]
    [TestCase("4", "socket=/s", 1)]
    public void Disk_NoQueuesSaid_HasOneForEachCpu(string cpus, string text, int queues) => Assert.That(
        ((BlockDeviceOptions)RunOptionsReader.Read((RunOptions)Verbs.Parse(["run", "--kernel", "k", "--cpus", cpus, "--disk", text])).Devices.Single()).Queues,
        Is.EqualTo(queues));

    [Test]
    public void Disk_LockAndDiscardOff_AreTheBackEnds() => Assert.That(
        Device<BlockDeviceOptions>("--disk", "path=/d,lock=off,discard=off,logical_block_size=4096").Peer.Program!.Arguments(3), Is.SupersetOf(
            new[] { "--lock", "off", "--discard", "off", "--logical-block-size", "4096" }));

    [Test]
    public void Disk_Path_StartsOurBackEnd()
    {
        var disk = Device<BlockDeviceOptions>("--disk", "path=/d,readonly=on,direct=on,queues=4,queue_size=128,serial=abc");
        Assert.That((disk.Queues, disk.IsReadOnly, disk.Peer.QueueSize, disk.Peer.Place), Is.EqualTo((4, true, (int?)128, "path=/d")));
        Assert.That(disk.Peer.Program!.Arguments(3), Is.SupersetOf(
            new[] { "backend", "blk", "--fd", "3", "--once", "--path", "/d", "--queues", "4", "--readonly", "--direct", "--serial", "abc" }));
    }

    [Test]
    public void Rng_SourceAndLimit_AreHandedOn()
    {
        var rng = Device<GenericDeviceOptions>("--rng", "src=/dev/hwrng,max_bytes_per_second=1000");
        Assert.That(rng.Kind.Type, Is.EqualTo(VirtioDeviceType.Rng));
        Assert.That(rng.Peer.Program!.Arguments(3), Is.SupersetOf(
            new[] { "backend", "rng", "--source", "/dev/hwrng", "--max-bytes-per-second", "1000" }));
    }

    [TestCase("pty", "pty")]
    [TestCase("file=\"/c,d\"", "/c,d")]
    public void Console_Where_IsHandedOn(string text, string path) => Assert.That(
        Device<GenericDeviceOptions>("--console", text).Peer.Program!.Arguments(3), Is.SupersetOf(new[] { "backend", "console", "--path", path }));

    [Test]
    public void Console_Keep_IsHandedOn() => Assert.That(
        Device<GenericDeviceOptions>("--console", "pty,keep=8M").Peer.Program!.Arguments(3), Is.SupersetOf(new[] { "--path", "pty", "--keep", "8388608" }));

    [TestCase("pty,keep=5000")]
    [TestCase("pty,keep=2K")]
    [TestCase("pty,keep=128M")]
    public void Console_KeepThatCannotBe_IsRefused(string text) => Assert.That(
        () => Device<GenericDeviceOptions>("--console", text), Throws.TypeOf<UsageException>().With.Message.StartsWith("--console: keep=").And.Message.Contains("power of two from 4K to 64M"));

    [Test]
    public void Vsock_Socket_StartsOurBackEnd()
    {
        var vsock = Device<GenericDeviceOptions>("--vsock", "cid=9,socket=/v");
        Assert.That(vsock.Kind.Type, Is.EqualTo(VirtioDeviceType.Vsock));
        Assert.That(vsock.Peer.Program!.Arguments(3), Is.SupersetOf(new[] { "backend", "vsock", "--uds-path", "/v", "--guest-cid", "9" }));
    }

    [Test]
    public void Vsock_GuestConnections_AreHandedOn() => Assert.That(
        Device<GenericDeviceOptions>("--vsock", "cid=9,socket=/v,guest_connections=accept").Peer.Program!.Arguments(3),
        Is.SupersetOf(new[] { "--uds-path", "/v", "--guest-connections", "accept" }));

    [TestCase("--disk", "path=/d,socket=/s", "--disk: socket='/s' cannot stand beside path=: either there is a back-end, or one is started")]
    [TestCase("--disk", "socket=/s,direct=on", "--disk: direct='on' has no effect without path=: it is for a back-end that is started here")]
    [TestCase("--disk", "path=/d,logical_block_size=520", "--disk: logical_block_size='520' is not allowed: choose one of 512, 1024, 2048, 4096")]
    [TestCase("--disk", "path=/d,lock=maybe", "--disk: lock='maybe' is not allowed: choose one of on, off, true, false")]
    [TestCase("--disk", "path=/d,queues=65", "--disk: queues='65' is not a number from 1 to 64")]
    [TestCase("--rng", "max_bytes_per_second=1", "--rng: 'max_bytes_per_second=1' has no source: write src=/dev/urandom")]
    [TestCase("--console", "tty", "--console: 'tty' is not allowed: choose one of pty, file=PATH")]
    [TestCase("--console", "file=", "--console: key 'file' has no value: write file=VALUE")]
    [TestCase("--vsock", "socket=/v", "--vsock: 'socket=/v' has no address: write cid=3")]
    [TestCase("--vsock", "cid=3,guest_connections=accept", "--vsock: guest_connections='accept' has no effect without socket=PATH")]
    [TestCase("--vsock", "cid=3,socket=/v,guest_connections=no", "--vsock: guest_connections='no' is not allowed: choose one of connect, accept")]
    public void Run_WrongDevice_IsRefused(string option, string text, string expected) => Assert.That(
        () => Device<VirtioDeviceOptions>(option, text), Throws.TypeOf<UsageException>().With.Message.EqualTo(expected));

    private static T Device<T>(string option, string text)
        where T : VirtioDeviceOptions =>
        (T)RunOptionsReader.Read((RunOptions)Verbs.Parse(["run", "--kernel", "k", option, text])).Devices.Single();

    private static (int Exit, string Output, string Error) Run(string[] args)
    {
        using var output = new StringWriter { NewLine = "\n" };
        using var error = new StringWriter { NewLine = "\n" };
        int exit = Program.Run(args, output, error);
        return (exit, output.ToString(), error.ToString());
    }
}
