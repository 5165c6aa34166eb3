using System.Diagnostics;
using System.Globalization;
using NUnit.Framework;
using Vmm.Tests.Fakes;

namespace Vmm.Tests.Integration.Linux.Devices;

/// <summary>File systems: our own daemon, and virtiofsd, started by the VMM or by somebody else.</summary>
public class FileSystemTests : DeviceTest
{
    private const string Unbind = "echo LNRO0005:00 > /sys/bus/platform/drivers/virtio-mmio/unbind";
    private const string Bind = "echo LNRO0005:00 > /sys/bus/platform/drivers/virtio-mmio/bind";

    private static readonly TimeSpan s_deadline = TimeSpan.FromMinutes(IsFull ? 15 : 4);

    private string _share = "";

    [SetUp]
    public void MakeShare() => _share = Directory.CreateDirectory(Path.Combine(Scratch, "share")).FullName;

    [Test]
    public void Source_FilesAndRandomOperations_AreRight()
    {
        int files = IsFull ? 5000 : 300;
        int seconds = IsFull ? 120 : 10;
        VmmProcess process = Boot(GuestWith(
            $"""
            mkdir /share
            mount -t virtiofs work /share || exit 1
            mkdir /share/files
            fstest files /share/files {files} || exit 1
            fstest random /share/random {seconds} 42 || exit 1
            echo "written by the guest" > /share/guest
            umount /share
            {Unbind}
            {Bind}
            mount -t virtiofs work /share || exit 1
            echo again=$(cat /share/guest)
            echo host=$(cat /share/host)
            """,
            "--fs", $"tag=work,source={_share}"));
        File.WriteAllText(Path.Combine(_share, "host"), "written by the host");
        VmmResult result = process.WaitForEnd(s_deadline);
        TestContext.Out.WriteLine(result.Output);

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(result.Output, Does.Contain(LinuxGuest.Ended(0)), result.Summary);
        Assert.That(ValueOf(result, "read"), Is.EqualTo(ValueOf(result, "written")));
        Assert.That(int.Parse(ValueOf(result, "operations"), CultureInfo.InvariantCulture), Is.GreaterThan(100));
        Assert.That(ValueOf(result, "again"), Is.EqualTo("written by the guest"));
        Assert.That(ValueOf(result, "host"), Is.EqualTo("written by the host"));
        Assert.That(File.ReadAllText(Path.Combine(_share, "guest")), Is.EqualTo("written by the guest\n"));
        Assert.That(Directory.GetFileSystemEntries(Temporary), Is.Empty, "what was left of the daemon");
        Assert.That(ProcFs.ProcessesWithEnvironment(VmmProcess.Mark), Is.Empty, "daemons");
    }

    // What programs expect, and a daemon that is killed while files are open.
    [Test]
    public void Source_OurDaemon_IsAWholeFileSystemThatOutlivesIt()
    {
        int kills = IsFull ? 20 : 1;
        string readOnly = Directory.CreateDirectory(Path.Combine(Scratch, "fixed")).FullName;
        File.WriteAllText(Path.Combine(readOnly, "file"), "fixed");
        VmmProcess process = Boot(GuestWith(
            $"""
            mkdir /share /fixed
            mount -t virtiofs work /share || exit 1
            mount -t virtiofs fixed /fixed || exit 1
            mkdir /share/posix
            fstest posix /share/posix || exit 1
            touch /fixed/no 2> /dev/null || echo "readonly=yes"
            exec 3< /share/before
            read -r first <&3
            fstest random /share/random {8 * kills} 42 &
            sleep 1
            echo "kill it"
            wait $! || exit 1
            read -r second <&3
            echo lines=$first,$second
            """,
            "--fs", $"tag=work,source={_share}", "--fs", $"tag=fixed,source={readOnly},readonly=on"));
        File.WriteAllText(Path.Combine(_share, "before"), "one\ntwo\n");
        process.WaitForOutput("kill it");
        int[] daemons = [];
        for (int kill = 0; kill < kills; kill++)
        {
            int[] killed = daemons;
            Eventually.True(() => (daemons = ProcFs.Daemons(process.Id)).Length == 2 && !daemons.Intersect(killed).Any(), () => $"{kill} times killed: no two daemons\n{process.Errors}");
            HostCommand.Run("kill", ["-KILL", .. daemons.Select(id => $"{id}")]);
            Thread.Sleep(TestContext.CurrentContext.Random.Next(3000));     // in the middle of anything
        }
        Assert.That(process.Output, Does.Not.Contain("lines="), "killed too late");
        VmmResult result = process.WaitForEnd(s_deadline);
        TestContext.Out.WriteLine(result.Output);

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(result.Output, Does.Contain(LinuxGuest.Ended(0)), result.Summary);
        Assert.That((ValueOf(result, "posix"), ValueOf(result, "readonly")), Is.EqualTo(("ok", "yes")));
        Assert.That(ValueOf(result, "lines"), Is.EqualTo("one,two"), "a file that was open all the time");
        Assert.That(result.Errors, Does.Contain("ended with signal 9").And.Contain("the back-end is back"));
        Assert.That(File.ReadAllText(Path.Combine(readOnly, "file")), Is.EqualTo("fixed"));
    }

    [Test]
    public void Source_Dax_FilesAreMapped()
    {
        VmmProcess process = Boot(GuestWith(
            """
            mkdir /share
            mount -t virtiofs -o dax=always work /share || exit 1
            grep -q dax=always /proc/mounts && echo "dax=on"
            echo host=$(cat /share/host)
            mkdir /share/files
            fstest files /share/files 40 || exit 1
            fstest random /share/random 8 42 || exit 1
            echo guest > /share/guest
            umount /share
            """,
            "--fs", $"tag=work,source={_share},dax=on"));
        File.WriteAllText(Path.Combine(_share, "host"), "by the host");
        VmmResult result = process.WaitForEnd(s_deadline);
        TestContext.Out.WriteLine(result.Output);
        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(result.Output, Does.Contain(LinuxGuest.Ended(0)), result.Summary);
        Assert.That((ValueOf(result, "dax"), ValueOf(result, "host")), Is.EqualTo(("on", "by the host")));
        Assert.That(ValueOf(result, "read"), Is.EqualTo(ValueOf(result, "written")));
        Assert.That(File.ReadAllText(Path.Combine(_share, "guest")), Is.EqualTo("guest\n"));
        Assert.That(result.Errors, Is.Empty);
    }

    // KVM cannot have a page behind the end of a file. The guest does not know of the new end.
    [Test]
    public void Source_DaxFilesThatTheHostCutsOff_EndNobody()
    {
        const int length = 4 << 20;
        VmmProcess process = Boot(GuestWith(
            $"""
            mkdir /share
            mount -t virtiofs -o dax=always work /share || exit 1
            fstest cut /share/file {(IsFull ? 60 : 5)} || exit 1
            """,
            "--fs", $"tag=work,source={_share},dax=on"));
        using FileStream file = File.Create(Path.Combine(_share, "file"));
        file.SetLength(length);
        process.WaitForOutput("cut it now and then");
        int cuts = 0;
        var random = new Random(3);
        var time = Stopwatch.StartNew();
        while (!process.Output.Contains("make it long", StringComparison.Ordinal) && !process.EndsWithin(TimeSpan.Zero) && time.Elapsed < s_deadline)
        {
            file.SetLength(random.Next(2) * 4096 * random.Next(length / 4096));
            Thread.Sleep(random.Next(3));
            file.SetLength(length);
            Thread.Sleep(random.Next(20));
            cuts++;
        }
        process.WaitForOutput("cut it for good");
        file.SetLength(0);
        process.Send("go\n"u8);
        VmmResult result = process.WaitForEnd(s_deadline);
        TestContext.Out.WriteLine($"{cuts} times cut\n{result.Output}\n{result.Errors}");

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(result.Output, Does.Contain(LinuxGuest.Ended(0)), result.Summary);
        Assert.That(long.Parse(ValueOf(result, "touched"), CultureInfo.InvariantCulture), Is.GreaterThan(100));
        Assert.That(ValueOf(result, "ended"), Is.EqualTo("9"));
        // KVM tells of what the guest's kernel touches; what its programs do it may keep to itself (asynchronous page faults).
        Assert.That(result.Errors, Is.Empty.Or.Contains("a part of a file (dax=on) that the host has cut off"));
    }

    [Test]
    public void Git_CloneInTheShare_IsClean()
    {
        string origin = Path.Combine(_share, "origin");
        HostCommand.Run("git", "init", "-q", origin);
        for (int commit = 0; commit < 3; commit++)
        {
            for (int i = 0; i < 40; i++)
                File.WriteAllText(Path.Combine(origin, $"file{i}"), $"{string.Concat(Enumerable.Repeat($"{commit} and {i}\n", 200 * (commit + 1)))}");
            HostCommand.Run("git", "-C", origin, "add", ".");
            HostCommand.Run("git", "-C", origin, "-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "-q", "-m", $"commit {commit}");
        }
        using HostDaemon daemon = HostDaemon.Virtiofsd(Path.Combine(Scratch, "fs"), _share);
        VmmResult result = Boot(GuestWith(
            """
            export GIT_EXEC_PATH=/bin GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'
            mkdir /share
            mount -t virtiofs work /share || exit 1
            git clone -q --no-local /share/origin /share/clone || exit 1
            git -C /share/clone fsck --full --strict && echo "fsck=clean"
            echo status=$(git -C /share/clone status --porcelain | wc -l)
            echo commits=$(git -C /share/clone log --oneline | wc -l)
            umount /share
            """,
            "--fs", $"tag=work,socket={Path.Combine(Scratch, "fs")}") with
        { HasTools = true, Memory = "512M" }).WaitForEnd(s_deadline);

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(ValueOf(result, "fsck"), Is.EqualTo("clean"), result.Summary);
        Assert.That(ValueOf(result, "status"), Is.EqualTo("0"), result.Summary);
        Assert.That(ValueOf(result, "commits"), Is.EqualTo("3"), result.Summary);
        Assert.That(HostCommand.Run("git", "-c", "safe.directory=*", "-C", Path.Combine(_share, "clone"), "fsck", "--full"), Does.Not.Contain("error"));
        Assert.That(daemon.WaitForEnd(), Is.Zero, "the daemon ends with its connection");
    }

    [Test]
    public void Reboot_WithADaemon_KeepsItsConnection()
    {
        // This daemon ends when its connection does.
        using HostDaemon daemon = HostDaemon.Virtiofsd(Path.Combine(Scratch, "fs"), _share);
        LinuxGuest guest = GuestWith(
            """
            mkdir /share
            mount -t virtiofs work /share || exit 1
            echo "booted" >> /share/boots
            sync
            echo boots=$(wc -l < /share/boots)
            read -r what
            [ "$what" != reboot ] || reboot -f
            """);
        string[] option = ["--fs", $"tag=work,socket={Path.Combine(Scratch, "fs")}"];
        VmmProcess process = Boot(guest with { Options = option });
        for (int boot = 1; boot <= 2; boot++)
        {
            process.WaitForOutput($"boots={boot}");
            Assert.That(daemon.IsRunning);
            process.Send(boot == 1 ? "reboot\n"u8 : "end\n"u8);
        }
        VmmResult result = process.WaitForEnd();
        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(result.Errors, Is.Empty);
        Assert.That(daemon.WaitForEnd(), Is.Zero);
    }

    [TestCase("vmm backend fs", "")]
    [TestCase("virtiofsd", ",daemon=/usr/lib/qemu/virtiofsd,sandbox=chroot")]
    public void Source_DaemonKilled_IsStartedAgainAndMountsAgain(string daemon, string keys)
    {
        VmmProcess process = Boot(GuestWith(
            """
            mkdir /share
            mount -t virtiofs work /share || exit 1
            echo "mounted"
            read -r go
            umount -l /share
            mount -t virtiofs work /share || exit 1
            echo again=$(cat /share/file)
            umount /share
            """,
            "--fs", $"tag=work,source={_share}{keys}"));
        File.WriteAllText(Path.Combine(_share, "file"), "still there");
        process.WaitForOutput("mounted");
        int[] daemons = ProcFs.Daemons(process.Id);
        Assert.That(daemons, Is.Not.Empty);
        HostCommand.Run("kill", ["-KILL", .. daemons.Select(id => $"{id}")]);
        process.WaitForErrors($"{daemon} ended with signal 9");
        process.WaitForErrors("the back-end is back");
        process.Send("go\n"u8);
        VmmResult result = process.WaitForEnd();

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(ValueOf(result, "again"), Is.EqualTo("still there"), result.Summary);
    }
}
