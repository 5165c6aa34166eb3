using NUnit.Framework;
using Vmm.Tests.Integration.Peers;

namespace Vmm.Tests.Integration.Linux.Devices;

/// <summary>What others test file systems with (firmware/guest/suite): in a directory that our back-end shares, and for comparison on the guest's own ext4. The shared directory is on an ext4 of
/// the host's. They take minutes: ./test.sh runs them with VMM_TESTS=full.</summary>
[Category("Full")]
public class FileSystemSuiteTests : DeviceTest
{
    private const string Size = "4G";       // of the host's file system, and of the guest's own

    private static readonly TimeSpan s_deadline = TimeSpan.FromMinutes(40);

    private static readonly string[] s_exec =
    [
        "exec", "--kernel", LinuxGuest.Artifact("kernels", "cloud", "vmlinuz"), "--modules", LinuxGuest.Artifact("kernels", "cloud", "root"),
        "--cmdline", LinuxHost.GuestOptions, "--memory", "1G", "--workdir", "/",
    ];

    private string _share = "";
    private string _local = "";

    [SetUp]
    public void MakeFileSystems()
    {
        if (!File.Exists(LinuxGuest.Artifact("guest", "suite.img")))
            Assert.Ignore("the tests of others are missing: run firmware/guest/build suite");
        HostCommand.Run("modprobe", "-a", "loop", "ext4");
        string image = Path.Combine(Scratch, "host.img");
        _local = Path.Combine(Scratch, "local.img");
        foreach (string file in (string[])[image, _local])
            HostCommand.Run("sh", "-c", $"truncate -s {Size} {file} && PATH=$PATH:/sbin:/usr/sbin mkfs.ext4 -q {file}");
        _share = Directory.CreateDirectory(Path.Combine(Scratch, "share")).FullName;
        HostCommand.Run("mount", "-o", "loop", image, _share);
    }

    [TearDown]
    public void Unmount()
    {
        if (_share.Length > 0)
            HostCommand.TryRun("umount", "--lazy", _share);
    }

    // Their reasons are in docs/virtio-fs.md. Whether the first two differ depends on the clocks of host and guest, which have to be within 50 ms of each other.
    [TestCase("root")]
    [TestCase("games")]
    public void Python_TestsOfFiles_AreAsOnALocalFileSystem(string user) => Compare(
        $"python DIR {user}",
        atLeast: 1500,
        "test.test_os.UtimeTests.test_utime_current", "test.test_os.UtimeTests.test_utime_current_old", "test.test_shutil.TestCopy.test_copyxattr_symlinks");

    // lockf ends its child, and waits for that, before it gives up the locks for which the child may be waiting.
    [Test]
    public void StressNg_FileSystemStressors_AreAsOnALocalFileSystem() => Compare("stress DIR 3", atLeast: 45, "lockf");

    [Test]
    public void Sqlite_SeveralWriters_LoseNothing() => Compare("sqlite DIR", atLeast: 4);

    [Test]
    public void Git_TenThousandFiles_AreClonedAndClean() => Compare("git DIR 10000", atLeast: 12);

    [Test]
    public void Fio_WhatItWrites_IsReadBack() => Compare("fio DIR 16", atLeast: 9);

    // A Debian tree on the share, in which packages are installed: with a set-user-id program, and one with file capabilities.
    [TestCase("root")]
    [TestCase("nobody")]
    public void Apt_PackagesInATreeOnTheShare_AreInstalledAndWork(string user)
    {
        bool isRoot = user == "root";
        string tree = Path.Combine(Scratch, "tree.img");
        HostCommand.Run("umount", _share);
        HostCommand.Run("cp", "--sparse=always", LinuxGuest.Artifact("guest", "suite.img"), tree);
        HostCommand.Run("mount", "-o", "loop", tree, _share);
        if (!isRoot)
        {
            HostCommand.Run("chown", "-R", $"{user}:", _share);
            HostCommand.Run("chmod", "755", Scratch);
            HostCommand.Run("chmod", "666", "/dev/vhost-vsock");
            HostCommand.Run("chmod", "777", Temporary);
            LinuxHost.GiveKvmToItsGroup();
        }
        string[] asUser = isRoot ? [] : ["setpriv", "--reuid", user, "--regid", "nogroup", "--groups", "kvm", "env", "HOME=/", $"TMPDIR={Temporary}"];
        string[] vmm =
        [
            .. asUser, .. VmmProcess.Command, .. s_exec, "--root", _share, "--rw", "--allow-setuid", "--bind-ro", $"{LinuxGuest.Artifact("guest", "packages")}:/packages", "--", "sh", "-c",
            FileSystemSuite.InstallPackages(isRoot),
        ];
        PeerProcess process = Keep(new PeerProcess(vmm[0], vmm[1..]));
        int status = process.WaitForEnd(s_deadline);
        string output = process.Output;
        TestContext.Out.WriteLine(process.Text);

        Assert.That(status, Is.Zero, process.Text);
        foreach (string expected in isRoot ? FileSystemSuite.PackageResults : FileSystemSuite.PackageResults[..1])
            Assert.That(output, Does.Contain(expected));
    }

    // Runs it once in either place. What works on the guest's ext4 has to work on the share, too, with these exceptions.
    private void Compare(string suite, int atLeast, params string[] differences)
    {
        VmmProcess process = StartVmm(
        [
            .. s_exec, "--root", LinuxGuest.Artifact("guest", "suite.img"), "--bind-ro", $"{RepositoryRoot.Combine("firmware", "guest")}:/suite",
            "--disk", $"path={_local}", "--fs", $"tag=share,source={_share}", "--", "sh", "-c",
            $"""
            mkdir /mnt/local /mnt/share
            mount /dev/vdb /mnt/local && mount -t virtiofs share /mnt/share || exit 1
            mkdir /mnt/local/work /mnt/share/work
            {FileSystemSuite.InBothPlaces(suite, "/suite/suite", "/mnt/local/work", "/mnt/share/work")}
            """,
        ]);
        process.EndInput();
        VmmResult result = process.WaitForEnd(s_deadline);
        TestContext.Out.WriteLine($"{result.Output}\n{result.Errors}");
        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        FileSystemSuite.AssertSame(result.Output, atLeast, differences);
    }
}
