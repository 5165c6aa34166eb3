using System.Diagnostics;
using System.Security.Cryptography;
using NUnit.Framework;
using Tmds.Linux;
using Vmm.Tests.Fakes;
using Vmm.Tests.Integration.Linux.Devices;

namespace Vmm.Tests.Integration.Linux;

/// <content>What the guest has as its root and as further directories.</content>
public partial class ExecTests
{
    [Test]
    public void Exec_WhatIsWritten_StaysInTheGuestUnlessBound()
    {
        string bound = Directory.CreateDirectory(Path.Combine(Scratch, "bound")).FullName, unbound = Path.Combine("/var", $"vmm-test-{Guid.NewGuid():N}");
        File.WriteAllText(Path.Combine(bound, "in"), "from the host\n");

        VmmResult result = Exec("", ["--bind", bound, "--bind", $"{bound}:/mnt/again"], "sh", "-c",
            $"cat {bound}/in; echo x > {unbound} && cat {unbound} && rm /etc/hostname && echo from the guest > /mnt/again/out");

        Assert.That(result, Is.EqualTo(new VmmResult(0, "from the host\nx\n", "")));
        Assert.That(File.Exists(unbound), Is.False);
        Assert.That(File.Exists("/etc/hostname"), Is.True);
        Assert.That(File.ReadAllText(Path.Combine(bound, "out")), Is.EqualTo("from the guest\n"));
    }

    [Test]
    public void Exec_ReadOnlyDirectory_CannotBeWrittenWhateverTheGuestDoes()
    {
        string bound = Directory.CreateDirectory(Path.Combine(Scratch, "bound")).FullName;
        File.WriteAllText(Path.Combine(bound, "in"), "from the host\n");

        VmmResult result = Exec("", ["--bind-ro", $"{bound}:/mnt/it"], "sh", "-c",
            "cat /mnt/it/in; mount -o remount,rw /mnt/it; echo x > /mnt/it/out || echo x > /mnt/it/in || echo refused");

        Assert.That(result.Output, Is.EqualTo("from the host\nrefused\n"), result.Summary);
        Assert.That(Directory.GetFiles(bound), Has.Length.EqualTo(1));
        Assert.That(File.ReadAllText(Path.Combine(bound, "in")), Is.EqualTo("from the host\n"));
    }

    [Test]
    public void Exec_RootOfOneProgram_IsEnough()
    {
        string root = Directory.CreateDirectory(Path.Combine(Scratch, "root")).FullName;
        File.Copy("/bin/busybox", Path.Combine(root, "busybox"));

        VmmResult result = Exec("", ["--root", root, "--workdir", "/"], "/busybox", "sh", "-c", "/busybox ls /; echo x > /written; /busybox id -u");

        Assert.That(result, Is.EqualTo(new VmmResult(0, "busybox\ndev\nproc\nrun\nsys\ntmp\n0\n", "")));
        Assert.That(Directory.GetFileSystemEntries(root), Is.EqualTo(new[] { Path.Combine(root, "busybox") }));
    }

    // There is no /bin/sh either, by which the C library runs what is no program.
    [Test]
    public void Exec_ProgramOfAnotherMachineInARootWithoutAShell_CannotBeExecuted()
    {
        string root = Directory.CreateDirectory(Path.Combine(Scratch, "root")).FullName, program = Path.Combine(root, "program");
        File.WriteAllBytes(program, [0x7F, .. "ELF"u8, .. new byte[100]]);
        HostCommand.Run("chmod", "0755", program);

        Assert.That(Exec("", ["--root", root, "--workdir", "/"], "/program"), Is.EqualTo(new VmmResult(126, "", "vmm: cannot run /program: Exec format error\n")));
    }

    // What the host has in /tmp is not in the guest, whose root has the links there all the same.
    [Test]
    public void Exec_DirectoryByALinkToWhatTheGuestLacks_IsThere()
    {
        string bound = Directory.CreateDirectory(Path.Combine(Scratch, "bound")).FullName, other = Directory.CreateDirectory(Path.Combine(Scratch, "other")).FullName, link = Path.Combine("/var", $"vmm-test-{Guid.NewGuid():N}");
        File.WriteAllText(Path.Combine(bound, "file"), "from the host\n");
        File.WriteAllText(Path.Combine(other, "file"), "from there, too\n");
        File.CreateSymbolicLink(link, bound);
        try
        {
            Assert.That(Exec("", ["--bind", link, "--bind-ro", $"{other}:{link}/an/other"], "cat", $"{link}/file", $"{link}/an/other/file"),
                Is.EqualTo(new VmmResult(0, "from the host\nfrom there, too\n", "")));
        }
        finally
        {
            File.Delete(link);
        }
    }

    [Test]
    public void Exec_RootWithPipesForFilesAndALongGroup_RunsAsThatUser()
    {
        string root = Directory.CreateDirectory(Path.Combine(Scratch, "root")).FullName;
        string etc = Directory.CreateDirectory(Path.Combine(root, "etc")).FullName;
        File.Copy("/bin/busybox", Path.Combine(root, "busybox"));
        HostCommand.Run("mkfifo", Path.Combine(etc, "hosts"), Path.Combine(etc, "resolv.conf"));
        File.WriteAllText(Path.Combine(etc, "passwd"), "u:x:7:8::/:/busybox\n");
        File.WriteAllText(Path.Combine(etc, "group"), $"long:x:9:{string.Join(',', Enumerable.Range(0, 1000).Select(i => $"member{i}"))},u\n");

        VmmResult result = Exec("", ["--root", root, "--workdir", "/", "--user", "u", "--net", "user"], "/busybox", "id");

        Assert.That(result.Output, Is.EqualTo("uid=7(u) gid=8 groups=9(long)\n"), result.Summary);
    }

    [Test]
    public void Exec_RootReadWrite_IsWritten()
    {
        string root = Directory.CreateDirectory(Path.Combine(Scratch, "root")).FullName;
        File.Copy("/bin/busybox", Path.Combine(root, "busybox"));

        VmmResult result = Exec("", ["--root", root, "--rw", "--workdir", "/"], "/busybox", "sh", "-c", "echo x > /written");

        Assert.That(result, Is.EqualTo(new VmmResult(0, "", "")));
        Assert.That(File.ReadAllText(Path.Combine(root, "written")), Is.EqualTo("x\n"));
    }

    [Test]
    public void Exec_RootReadWriteWithoutTheDirectoryOfHere_RunsInAnEmptyOne()
    {
        string root = Directory.CreateDirectory(Path.Combine(Scratch, "root")).FullName, name = $"test-{Guid.NewGuid():N}"[..20];
        File.Copy("/bin/busybox", Path.Combine(root, "busybox"));
        // What the host has in /tmp of the guest is not in reach of it either.
        string bound = Directory.CreateDirectory(Path.Combine(Scratch, "bound")).FullName;
        File.WriteAllText(Path.Combine(bound, "file"), "");
        string[] command = ["/busybox", "sh", "-c", "/busybox rm -rf *; /busybox touch /touched here; /busybox ls"];
        string told = $"\\Avmm: cannot go to {Scratch}: No such file or directory: the command runs in /dev/shm/vmm-exec-[A-Za-z0-9]{{6}} \\(--bind brings a directory of this machine, --workdir gives another one\\)\n\\z";

        foreach (string place in (string[])["/tmp", "/tmp/bound"])
        {
            VmmResult alone = InScratch([.. s_kernel, "--root", root, "--rw", "--bind", $"{bound}:{place}", "--", .. command]).WaitForEnd();
            Assert.That((alone.ExitCode, alone.Output), Is.EqualTo((0, "here\n")), alone.Summary);
            Assert.That(alone.Errors, Does.Match(told));
        }
        VmmProcess first = Start(["--root", root, "--rw", "--workdir", "/", "--name", name], "/busybox", "sh", "-c", "echo ready; read -r line");
        first.WaitForOutput("ready");
        Assert.That(InScratch(["exec", "--attach", name, "--quiet", "--", .. command]).WaitForEnd(), Is.EqualTo(new VmmResult(0, "here\n", "")));
        first.EndInput();
        first.WaitForEnd();

        Assert.That(Directory.GetFiles(root), Is.EquivalentTo(new[] { Path.Combine(root, "busybox"), Path.Combine(root, "touched") }));
        Assert.That(Directory.GetFileSystemEntries(bound), Is.EqualTo(new[] { Path.Combine(bound, "file") }));
    }

    // A killed process has its files open until it has freed its memory. What is mounted in a file system holds that, too.
    [Test]
    public void Exec_ScratchDiskInUseAtTheEnd_IsUnmounted()
    {
        string image = ScratchDisk();

        VmmResult result = Exec("", ["--disk", $"path={image}", "--memory", "1G"], "sh", "-c", """
            mount -t ext4 /dev/vda /mnt && mkdir /mnt/in && mount -t tmpfs in /mnt/in || exit 1
            echo never > /sys/kernel/mm/transparent_hugepage/enabled; cd /mnt
            perl -e 'open F, ">", "/mnt/file"; open G, ">", "/mnt/in/file"; $x = "a" x 100000000; open R, ">", "/tmp/ready"; sleep 1000' > /dev/null 2>&1 &
            until test -e /tmp/ready; do sleep 0.1; done
            """);

        Assert.That(result, Is.EqualTo(new VmmResult(0, "", "")));
        AssertClean(image);
    }

    [Test]
    public void Exec_ScratchDiskInUseByTheKernelAtTheEnd_IsUnmounted()
    {
        string image = ScratchDisk(), modules = LinuxGuest.Artifact("kernels", "cloud", "root", "lib", "modules", new LinuxGuest().Release, "kernel", "drivers", "block");

        VmmResult result = Exec("", ["--disk", $"path={image}", "--bind-ro", $"{modules}:/media"], "sh", "-c", """
            busybox insmod /media/loop.ko; mount -t ext4 /dev/vda /mnt || exit 1
            dd if=/dev/zero of=/mnt/swap bs=1M count=8 2> /dev/null; chmod 600 /mnt/swap; busybox mkswap /mnt/swap > /dev/null && busybox swapon /mnt/swap || exit 2
            truncate -s 9M /mnt/file && busybox losetup -f /mnt/file && busybox losetup -a | grep -q /mnt/file || exit 3
            mkdir /mnt/upper /mnt/work /tmp/both && mount -t overlay both -o lowerdir=/usr,upperdir=/mnt/upper,workdir=/mnt/work /tmp/both && echo x > /tmp/both/file || exit 4
            """);

        Assert.That(result, Is.EqualTo(new VmmResult(0, "", "")));
        AssertClean(image);
    }

    // Two mounts in one place, and one over the place where the disk is.
    [TestCase("/mnt")]
    [TestCase("/mnt/below")]
    public void Exec_ScratchDiskUnderAnotherMountAtTheEnd_IsUnmounted(string place)
    {
        string image = ScratchDisk();

        VmmResult result = Exec("", ["--disk", $"path={image}"], "sh", "-c", $"mkdir -p {place} && mount -t ext4 /dev/vda {place} && echo x > {place}/file && mount -t tmpfs none /mnt");

        Assert.That(result, Is.EqualTo(new VmmResult(0, "", "")));
        AssertClean(image);
    }

    // By a name that is relative to /dev (mount(8) makes it whole, mount(2) does not), and in a mount namespace that a file keeps when its last process has ended.
    [TestCase("cd /dev && perl -e '($s, $t, $f) = (\"vda\", \"/mnt\", \"ext4\"); syscall(165, $s, $t, $f, 0, 0) == 0 or die $!' && echo x > /mnt/file")]
    [TestCase("mount -t tmpfs kept /media && mount --make-private /media && touch /media/kept && unshare --mount=/media/kept sh -c 'mount -t ext4 /dev/vda /mnt && echo x > /mnt/file'")]
    public void Exec_ScratchDiskMountedInAnotherWayAtTheEnd_IsUnmounted(string script)
    {
        string image = ScratchDisk();

        VmmResult result = Exec("", ["--disk", $"path={image}"], "sh", "-c", script);

        Assert.That(result, Is.EqualTo(new VmmResult(0, "", "")));
        AssertClean(image);
    }

    // The only process of its namespace waits in the kernel, where no signal reaches it.
    [Test]
    public void Exec_ScratchDiskThatCannotBeUnmounted_IsTold()
    {
        VmmResult result = Exec("", ["--disk", $"path={ScratchDisk()}"], "unshare", "--mount", "sh", "-c", """
            mount -t ext4 /dev/vda /mnt && fsfreeze -f /mnt || exit 1
            dd if=/dev/zero of=/mnt/file count=1 > /dev/null 2>&1 < /dev/null & until grep -q '(dd) D' /proc/$!/stat; do sleep 0.1; done
            """);

        Assert.That(result, Is.EqualTo(new VmmResult(0, "", "vmm: the guest cannot unmount the disk vda: a process that does not end or the kernel uses it\n")));
    }

    // The disk does not go on before more time has gone by than a signal has.
    [Test]
    public void Exec_SignalWhileTheScratchDiskIsWritten_DoesNotEndThat()
    {
        string image = ScratchDisk();
        VmmProcess process = Start(["--disk", $"path={image}"], "sh", "-c", "trap '' INT; mount -t ext4 /dev/vda /mnt && dd if=/dev/zero of=/mnt/file bs=1M count=8 2> /dev/null && echo ready && read -r line");
        process.WaitForOutput("ready");
        int backend = BlockBackend();
        Assert.That(LibC.kill(backend, LibC.SIGSTOP), Is.Zero);
        process.EndInput();
        Thread.Sleep(3000);     // for the end of the command
        process.Signal(LibC.SIGINT);
        Thread.Sleep(7000);
        Assert.That(LibC.kill(backend, LibC.SIGCONT), Is.Zero);

        Assert.That(process.WaitForEnd(), Is.EqualTo(new VmmResult(1, "ready\n", "")));
        AssertClean(image);
    }

    // The guest cannot write its disk, and so cannot power off: the end of the connection tells.
    [Test]
    public void Exec_AgentIsKilledWhileTheScratchDiskHangs_IsTold()
    {
        VmmProcess process = Start(["--disk", $"path={ScratchDisk()}"], "sh", "-c", "mount -t ext4 /dev/vda /mnt && dd if=/dev/zero of=/mnt/file bs=1M count=8 2> /dev/null && echo ready && read -r line; kill -9 $PPID; sleep 1000");
        process.WaitForOutput("ready");
        Assert.That(LibC.kill(BlockBackend(), LibC.SIGSTOP), Is.Zero);
        process.EndInput();

        // The agent's line may not have reached the console.
        VmmResult result = process.WaitForEnd();
        Assert.That((result.ExitCode, result.Output), Is.EqualTo((125, "ready\n")), result.Summary);
        Assert.That(result.Errors, Does.Match("\\Avmm: the guest lost (its agent, which somebody in it has killed,|the connection with its agent) before sh had ended\n"));
    }

    [Test]
    public void Exec_DiskImageAsRoot_IsChangedOnlyWhenAskedFor()
    {
        string root = Directory.CreateDirectory(Path.Combine(Scratch, "root")).FullName, image = Path.Combine(Scratch, "root.img");
        File.Copy("/bin/busybox", Path.Combine(root, "busybox"));
        HostCommand.Run("sh", "-c", $"truncate -s 32M {image} && PATH=$PATH:/sbin:/usr/sbin mkfs.ext4 -q -d {root} {image}");
        byte[] before = SHA256.HashData(File.ReadAllBytes(image));

        VmmResult result = Exec("", ["--root", image, "--workdir", "/"], "/busybox", "sh", "-c", "echo x > /written; /busybox cat /written");
        Assert.That(result, Is.EqualTo(new VmmResult(0, "x\n", "")));
        Assert.That(SHA256.HashData(File.ReadAllBytes(image)), Is.EqualTo(before));

        result = Exec("", ["--root", image, "--rw", "--workdir", "/"], "/busybox", "sh", "-c", "echo x > /written");
        Assert.That(result, Is.EqualTo(new VmmResult(0, "", "")));
        Assert.That(HostCommand.Run("sh", "-c", $"PATH=$PATH:/sbin:/usr/sbin; e2fsck -fn {image} >&2 && debugfs -R 'cat /written' {image}"), Does.Contain("x\n"));

        result = Exec("", ["--root", image, "--rw", "--workdir", "/"], "/no/such");
        Assert.That(result, Is.EqualTo(new VmmResult(127, "", "vmm: cannot run /no/such: No such file or directory\n")));
        AssertClean(image);
    }

    private string ScratchDisk()
    {
        string image = Path.Combine(Scratch, "scratch.img");
        HostCommand.Run("sh", "-c", $"truncate -s 64M {image} && PATH=$PATH:/sbin:/usr/sbin mkfs.ext4 -q {image}");
        return image;
    }

    private static int BlockBackend() => ProcFs.ProcessesWithEnvironment(VmmProcess.Mark).Single(id => File.ReadAllText($"/proc/{id}/cmdline").Contains("\0backend\0blk\0", StringComparison.Ordinal));

    private static void AssertClean(string image) =>
        Assert.That(HostCommand.Run("sh", "-c", $"PATH=$PATH:/sbin:/usr/sbin dumpe2fs -h {image} 2> /dev/null"), Does.Contain("Filesystem state:         clean").And.Not.Contain("needs_recovery"));

    // mkfs.erofs and the like are seldom installed: the image is made here.
    [Test]
    public void Exec_ImageWithAnotherFileSystem_IsARoot()
    {
        string image = Path.Combine(Scratch, "root.img");
        File.WriteAllBytes(image, ErofsImage.WithOneFile("busybox", File.ReadAllBytes("/bin/busybox")));

        VmmResult result = Exec("", ["--root", image, "--workdir", "/"], "/busybox", "sh", "-c",
            "echo x > /written; /busybox cat /written; /busybox grep -o erofs /proc/filesystems");

        Assert.That(result, Is.EqualTo(new VmmResult(0, "x\nerofs\n", "")));
    }

    // As mmdebstrap makes one for a user. Its recipe has unshare, and that newuidmap, a set-user-id program that may not be installed: here root gives the namespace its users.
    [Test]
    public void Exec_TreeOfSubordinateUsersInAUserNamespace_IsARoot()
    {
        const string user = "1234", map = "0 200000 65536\\n65536 1234 1\\n";
        LinuxHost.GiveKvmToItsGroup();
        string tree = Path.Combine(Scratch, "tree"), shadow = Path.Combine(tree, "etc", "shadow"), bound = Path.Combine(Scratch, "bound");
        HostCommand.Run("sh", "-c", $"""
            set -e
            mkdir -p {tree}/etc {tree}/home {bound}
            cp /bin/busybox {tree}
            echo secret > {shadow}
            chown -R 200000:200000 {tree}
            chown 201000:201000 {tree}/home
            chmod 0755 {Scratch}
            chmod 0700 {tree} {tree}/home
            chmod 0600 {shadow}
            chown {user}:{user} {Temporary} {bound}
            """);

        using Process process = HostCommand.Start("setpriv",
        [
            "--reuid", user, "--regid", user, "--groups", HostCommand.Run("stat", "-c", "%g", "/dev/kvm").Trim(),
            "unshare", "--user", "--keep-caps", "sh", "-c", "read -r go; exec setpriv --reuid 0 --keep-groups env -C / \"$@\"", "sh", $"TMPDIR={Temporary}", $"XDG_RUNTIME_DIR={Temporary}",
            .. VmmProcess.Command, .. s_kernel, "--root", tree, "--bind", $"{bound}:/mnt", "--workdir", "/", "--", "/busybox", "sh", "-c", """
            /busybox cat etc/shadow; echo x > home/new; /busybox chown 5:6 home/new
            echo x > mnt/roots; echo x > mnt/callers; /busybox chown 65536:65536 mnt/callers
            /busybox stat -c '%u:%g %n' etc/shadow home home/new mnt
            """,
        ]);
        string Namespace(string id) => File.ResolveLinkTarget($"/proc/{id}/ns/user", returnFinalTarget: false)!.Name;
        Eventually.True(() => Namespace($"{process.Id}") != Namespace("self"), () => "no user namespace");
        HostCommand.Run("sh", "-c", $"printf '{map}' > /proc/{process.Id}/uid_map && printf '{map}' > /proc/{process.Id}/gid_map");
        process.StandardInput.Write("go\n");
        process.StandardInput.Close();
        Task<string> output = process.StandardOutput.ReadToEndAsync(), errors = process.StandardError.ReadToEndAsync();
        Assert.That(process.WaitForExit(VmmProcess.Deadline), Is.True);

        Assert.That((process.ExitCode, output.Result, errors.Result), Is.EqualTo((0, "secret\n0:0 etc/shadow\n1000:1000 home\n5:6 home/new\n65536:65536 mnt\n", "")));
        Assert.That(Directory.GetFileSystemEntries(Path.Combine(tree, "home")), Is.Empty);
        Assert.That(HostCommand.Run("sh", "-c", $"cd {bound} && stat -c '%u:%g %n' *"), Is.EqualTo($"{user}:{user} callers\n200000:200000 roots\n"));
    }

    [Category("Full")]
    [TestCase(false)]
    [TestCase(true)]    // as its owner, who is not root
    public void Exec_DebianTree_IsARoot(bool isUsers)
    {
        const string user = "1234";
        LinuxHost.GiveKvmToItsGroup();
        string tree = Path.Combine(Scratch, "tree");
        HostCommand.Run("sh", "-c", $"PATH=$PATH:/sbin:/usr/sbin; mkdir {tree} && debugfs -R 'rdump / {tree}' {LinuxGuest.Artifact("guest", "debian.img")} 2>&1");
        HostCommand.Run("sh", "-c", $"chmod 0755 {Scratch}; {(isUsers ? $"chown -R {user}:{user} {tree} {Temporary}" : "true")}");

        string[] command =
        [
            "env", "-C", "/", $"TMPDIR={Temporary}", .. VmmProcess.Command, .. s_kernel, "--root", tree, "--workdir", "/root", "--", "sh", "-c",
            "cut -d. -f1 /etc/debian_version; dpkg -s dpkg > /dev/null && echo packages; su -s /bin/sh nobody -c id; rm /etc/os-release; echo x > written",
        ];
        (int status, string output) = isUsers
            ? HostCommand.TryRun("setpriv", ["--reuid", user, "--regid", user, "--groups", HostCommand.Run("stat", "-c", "%g", "/dev/kvm").Trim(), .. command])
            : HostCommand.TryRun(command[0], command[1..]);

        Assert.That((status, output), Is.EqualTo((0, "12\npackages\nuid=65534(nobody) gid=65534(nogroup) groups=65534(nogroup)\n")));
        Assert.That(File.Exists(Path.Combine(tree, "etc", "os-release")), Is.True);
    }
}
