using System.Diagnostics;
using System.Globalization;
using NUnit.Framework;
using Vmm.Tests.Fakes;

namespace Vmm.Tests.Integration.Linux.Devices;

/// <summary>File systems: our own back-end, and virtiofsd, started by the VMM or by somebody else.</summary>
public class FileSystemTests : DeviceTest
{
    private const string Unbind = "echo LNRO0005:00 > /sys/bus/platform/drivers/virtio-mmio/unbind";
    private const string Bind = "echo LNRO0005:00 > /sys/bus/platform/drivers/virtio-mmio/bind";

    private static readonly TimeSpan s_deadline = TimeSpan.FromMinutes(IsFull ? 15 : 4);

    private string _share = "";
    private bool _hasDisk;

    [SetUp]
    public void MakeShare() => _share = Directory.CreateDirectory(Path.Combine(Scratch, "share")).FullName;

    [TearDown]
    public void Unmount()
    {
        if (_hasDisk)
            HostCommand.TryRun("umount", "--lazy", _share);
        _hasDisk = false;
    }

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
        // overlayfs keeps extended attributes in its upper directory, which the host's memory file system does not have.
        MountDisk();
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
            $"""
            export GIT_EXEC_PATH=/bin GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'
            modprobe overlay
            for share in ours theirs; do
                mkdir /$share
                mount -t virtiofs $share /$share || exit 1
                git clone -q --no-local /$share/origin /$share/clone-$share || exit 1
                git -C /$share/clone-$share fsck --full --strict && echo "$share.fsck=clean"
                echo $share.status=$(git -C /$share/clone-$share status --porcelain | wc -l)
                echo $share.commits=$(git -C /$share/clone-$share log --oneline | wc -l)
            done
            umount /theirs
            mkdir /merged
            {FileSystemSuite.Overlay("/ours")}
            umount /ours
            """,
            "--fs", $"tag=ours,source={_share}", "--fs", $"tag=theirs,socket={Path.Combine(Scratch, "fs")}") with
        { HasTools = true, Memory = "512M" }).WaitForEnd(s_deadline);

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        foreach (string share in (string[])["ours", "theirs"])
        {
            Assert.That(
                (ValueOf(result, $"{share}.fsck"), ValueOf(result, $"{share}.status"), ValueOf(result, $"{share}.commits")), Is.EqualTo(("clean", "0", "3")), $"{share}: {result.Summary}");
            Assert.That(HostCommand.Run("git", "-c", "safe.directory=*", "-C", Path.Combine(_share, $"clone-{share}"), "fsck", "--full"), Does.Not.Contain("error"));
        }
        FileSystemSuite.AssertOverlay(result.Output, _share);
        Assert.That(daemon.WaitForEnd(), Is.Zero, "virtiofsd ends with its connection");
    }

    // The writer is a daemon of its own, so what it changes is the host's change for the others. Time is the guest's.
    [Test]
    public void Cache_EachMode_ShowsTheHostsChangesAsItSays()
    {
        const string modes = "auto always metadata never";
        VmmResult result = Run(GuestWith(
            $$"""
            for share in writer {{modes}}; do
                mkdir /$share
                mount -t virtiofs $share /$share || exit 1
            done
            look() { # what each sees: a file's content, the size of another, which names there are
                for mode in {{modes}}; do
                    cd /$mode
                    echo "$1.$mode=$(cat content),$(stat -c %s size),$([ -e old ] && echo old)$([ -e new ] && echo new)"
                done
            }
            cd /writer
            printf before | tee content > size
            : > old
            look before
            cd /writer
            printf after! > content
            printf longer >> size
            mv old new
            look now
            sleep 1
            look later
            """,
            [.. ((string[])["writer", .. modes.Split(' ')]).SelectMany(tag => (string[])["--fs", $"tag={tag},source={_share},cache={(tag == "writer" ? "never" : tag)}"])]));
        TestContext.Out.WriteLine(result.Output);
        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(result.Output, Does.Contain(LinuxGuest.Ended(0)), result.Summary);
        Assert.Multiple(() =>
        {
            foreach (string mode in modes.Split(' '))
                Assert.That(ValueOf(result, $"before.{mode}"), Is.EqualTo("before,6,old"));
            const string changed = "after!,12,new";
            Assert.That(ValueOf(result, "now.never"), Is.EqualTo(changed), "nothing is kept");
            Assert.That(ValueOf(result, "later.never"), Is.EqualTo(changed));
            Assert.That(ValueOf(result, "later.auto"), Is.EqualTo(changed), "after a second");
            Assert.That(ValueOf(result, "later.metadata"), Is.EqualTo("after!,6,oldnew"), "the data only");
            Assert.That(ValueOf(result, "later.always"), Is.EqualTo("before,6,oldnew"), "what was seen once stays");
        });
    }

    // The host has marked a directory, and what is made in it is marked, too. Files there are mapped, others are not; and the daemon is killed while they are.
    [Test]
    public void Source_DaxOfMarkedFiles_OutlivesTheDaemon()
    {
        MountDisk();
        string marked = Directory.CreateDirectory(Path.Combine(_share, "marked")).FullName;
        HostCommand.Run("chattr", "+x", marked);
        File.WriteAllText(Path.Combine(marked, "mapped"), "in memory");
        File.WriteAllText(Path.Combine(_share, "copied"), "by message");
        VmmProcess process = Boot(GuestWith(
            """
            mkdir /share
            mount -t virtiofs -o dax=inode work /share || exit 1
            cd /share
            echo first=$(cat marked/mapped copied)
            echo "looked at"
            read -r go
            fstest random marked/random 12 42 &
            sleep 1
            echo "kill it"
            wait $! || exit 1
            echo second=$(cat marked/mapped copied)
            printf 'by the guest' > marked/mapped
            cd / && umount /share && mount -t virtiofs work /share && echo third=$(cat /share/marked/mapped)
            """,
            "--fs", $"tag=work,source={_share},dax=inode"));
        process.WaitForOutput("looked at");
        string maps = File.ReadAllText($"/proc/{process.Id}/maps");
        Assert.That(maps, Does.Contain("/marked/mapped").And.Not.Contain("/copied"), "what the VMM has mapped");
        process.Send("go\n"u8);
        process.WaitForOutput("kill it");
        HostCommand.Run("kill", "-KILL", $"{ProcFs.Daemons(process.Id).Single()}");
        process.WaitForErrors("the back-end is back");
        Assert.That(process.Output, Does.Not.Contain("second="), "killed too late");
        VmmResult result = process.WaitForEnd(s_deadline);
        TestContext.Out.WriteLine(result.Output);

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(result.Output, Does.Contain(LinuxGuest.Ended(0)), result.Summary);
        Assert.That((ValueOf(result, "first"), ValueOf(result, "second")), Is.EqualTo(("in memoryby message", "in memoryby message")));
        Assert.That(ValueOf(result, "third"), Is.EqualTo("by the guest"));
        Assert.That(File.ReadAllText(Path.Combine(marked, "mapped")), Is.EqualTo("by the guest"));
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

    // The shared directory is one of an ext4, which has all kinds of attributes.
    private void MountDisk()
    {
        string image = Path.Combine(Scratch, "host.img");
        HostCommand.Run("modprobe", "-a", "loop", "ext4");
        HostCommand.Run("sh", "-c", $"truncate -s 256M {image} && PATH=$PATH:/sbin:/usr/sbin mkfs.ext4 -q {image}");
        HostCommand.Run("mount", "-o", "loop", image, _share);
        _hasDisk = true;
    }
}
