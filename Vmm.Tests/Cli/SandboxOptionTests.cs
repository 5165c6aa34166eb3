using NUnit.Framework;
using Vmm.Cli;
using Vmm.Sandbox;
using Vmm.Tests.Integration.Linux.Devices;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Cli;

public sealed class SandboxOptionTests
{
    private string _root = "";

    [SetUp]
    public void MakeRoot()
    {
        _root = Directory.CreateTempSubdirectory("vmm-test-").FullName;
        Directory.CreateDirectory(Path.Combine(_root, "etc"));
        File.WriteAllText(Path.Combine(_root, "etc", "passwd"), "root:x:0:0:root:/root:/bin/sh\nguest:x:501:601:A guest:/nonexistent:/usr/sbin/nologin\nbroken\nwheel:x:502:0::/:/bin/sh\n");
        File.WriteAllText(Path.Combine(_root, "etc", "group"), "root:x:0:\nkvm:x:104:guest\n");
    }

    [TearDown]
    public void RemoveRoot() => Directory.Delete(_root, recursive: true);

    private JailOptions? Parse(string? sandbox = null, string? user = null, string? chroot = null) =>
        SandboxOption.Parse(new RunOptions { Sandbox = sandbox, User = user, Chroot = chroot }, _root);

    [Test]
    public void Parse_Nothing_IsOnAndChangesNobody() => Assert.That(Parse(), Is.EqualTo(new JailOptions()));

    [Test]
    public void Parse_Off_IsNull() => Assert.That(Parse(sandbox: "off"), Is.Null);

    [TestCase("guest", 501U, 601U)]
    [TestCase("guest:kvm", 501U, 104U)]
    [TestCase("501:kvm", 501U, 104U)]
    [TestCase("501", 501U, 601U)]
    [TestCase("4294967294:7", 4294967294U, 7U)]
    public void Parse_User_IsLookedUp(string text, uint user, uint group) => Assert.That(Parse(user: text)!.Identity, Is.EqualTo((user, group)));

    [TestCase("root", "--user: 'root' is root: give a user who has no rights")]
    [TestCase("0", "--user: '0' is root: give a user who has no rights")]
    [TestCase("0:104", "--user: '0:104' is root: give a user who has no rights")]
    [TestCase("guest:0", "--user: 'guest:0' has the group of root, whose files the process could use: give another group as USER:GROUP")]
    [TestCase("guest:root", "--user: 'guest:root' has the group of root, whose files the process could use: give another group as USER:GROUP")]
    [TestCase("wheel", "--user: 'wheel' has the group of root, whose files the process could use: give another group as USER:GROUP")]
    [TestCase("nobody", "--user: 'nobody' names a user who is not in /etc/passwd")]
    [TestCase("503", "--user: '503' names no user of /etc/passwd, and no group: give USER:GROUP")]
    [TestCase("guest:nogroup", "--user: 'guest:nogroup' names a group that is not in /etc/group")]
    [TestCase("4294967295:1", "--user: '4294967295:1' names a user who is not in /etc/passwd")]
    [TestCase("guest:4294967295", "--user: 'guest:4294967295' names a group that is not in /etc/group")]
    [TestCase("-1:1", "--user: '-1:1' names a user who is not in /etc/passwd")]
    [TestCase("", "--user: '' is not USER or USER:GROUP")]
    [TestCase("guest:", "--user: 'guest:' is not USER or USER:GROUP")]
    [TestCase("a:b:c", "--user: 'a:b:c' is not USER or USER:GROUP")]
    public void Parse_UserThatIsNone_IsRefused(string text, string expected) =>
        Assert.That(() => Parse(user: text), Throws.InstanceOf<UsageException>().With.Message.EqualTo(expected));

    [Test]
    public void Parse_ChrootWhoseNameIsNotUtf8_IsThatDirectory()
    {
        string odd = Path.Combine(_root, "odd\udcff");
        PrivateDirectory.Make(odd);
        try
        {
            Assert.That(Parse(chroot: odd)!.Root, Is.EqualTo(odd));
        }
        finally
        {
            HostCommand.Run("find", _root, "-name", "odd*", "-delete");     // what .NET cannot
        }
    }

    [Test]
    public void Parse_Chroot_IsAnEmptyDirectory()
    {
        string empty = Directory.CreateDirectory(Path.Combine(_root, "empty")).FullName;
        Assert.That(Parse(chroot: empty)!.Root, Is.EqualTo(empty));
        foreach (string full in new[] { _root, "/", "/proc" })
        {
            Assert.That(() => Parse(chroot: full), Throws.InstanceOf<UsageException>().With.Message.EqualTo(
                $"--chroot: '{full}' is not empty: whoever takes the process over would have what is in it; give an empty directory"));
        }
        Assert.That(
            () => Parse(chroot: "/nonexistent"),
            Throws.InstanceOf<UsageException>().With.Message.EqualTo("--chroot: '/nonexistent' is no directory: make an empty one first"));
    }

    [TestCase("guest", null, "--user: is a part of the sandbox: leave --sandbox off out")]
    [TestCase(null, "/", "--chroot: is a part of the sandbox: leave --sandbox off out")]
    public void Parse_PartsOfASandboxThatIsOff_AreRefused(string? user, string? chroot, string expected) =>
        Assert.That(() => Parse("off", user, chroot), Throws.InstanceOf<UsageException>().With.Message.EqualTo(expected));
}
