using System.Net.Sockets;
using NUnit.Framework;
using Vmm.Tests.Guest;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Tests.Native;

[System.Runtime.Versioning.SupportedOSPlatform("linux")]
[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class RegularFileTests : IDisposable
{
    private readonly HostTree _place = new();

    public void Dispose() => _place.Dispose();

    // open(2) of a socket fails whatever it is opened for: what it is can only be seen by who has not opened it. The same holds for a device that does something when it is opened.
    [Test]
    public void Open_WhatIsNoFile_IsLookedAtAndNotOpened()
    {
        using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        socket.Bind(new UnixDomainSocketEndPoint(_place.In("s")));
        using FileDescriptor directory = FileTree.OpenDirectory(_place.Root);

        foreach (Func<RegularFile> open in new[] { () => RegularFile.OpenRead(_place.In("s")), () => RegularFile.OpenRead(directory, "s"), () => RegularFile.OpenBeneath(_place.Root, "s") })
            Assert.That(() => open(), Throws.TypeOf<InvalidDataException>().With.Message.EqualTo("is a socket"));
    }

    [Test]
    public void Open_Link_IsFollowedOnlyByAPath()
    {
        _place.Add("in/file", "abc");
        File.CreateSymbolicLink(_place.In("link"), "in/file");
        Directory.CreateSymbolicLink(_place.In("directory"), "in");
        using FileDescriptor directory = FileTree.OpenDirectory(_place.Root);

        using (RegularFile file = RegularFile.OpenRead(_place.In("directory/../link")))
            Assert.That((file.Length, file.Read(new byte[8], 0)), Is.EqualTo((3UL, 3)));
        using (RegularFile file = RegularFile.OpenBeneath(_place.In("directory"), "file"))
            Assert.That(file.Length, Is.EqualTo(3));
        Assert.That(() => RegularFile.OpenRead(directory, "link"), Throws.TypeOf<ErrnoException>().With.Property(nameof(ErrnoException.Errno)).EqualTo(Errnos.Eloop));
        foreach (string path in new[] { "link", "directory/file" })
            Assert.That(() => RegularFile.OpenBeneath(_place.Root, path), Throws.TypeOf<ErrnoException>().With.Property(nameof(ErrnoException.Errno)).EqualTo(Errnos.Eloop));
        Assert.That(() => RegularFile.OpenBeneath(_place.In("in"), "../in/file"), Throws.TypeOf<ErrnoException>());
    }

    [Test]
    public void OpenRead_FileThatMayNotBeRead_SaysSoByItsName()
    {
        if (FileOwner.User == 0)
            Assert.Ignore("root may read every file");
        File.SetUnixFileMode(_place.Add("secret"), UnixFileMode.None);

        Assert.That(() => RegularFile.OpenRead(_place.In("secret")), Throws.TypeOf<ErrnoException>().With.Message.StartsWith($"cannot open {_place.In("secret")}: Permission denied"));
    }
}
