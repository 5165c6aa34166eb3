using NUnit.Framework;
using Vmm.Guest;

namespace Vmm.Tests.Guest;

public sealed class DiskFileSystemTests
{
    private string _image = "";

    [SetUp]
    public void MakeFile() => _image = Path.GetTempFileName();

    [TearDown]
    public void RemoveFile() => File.Delete(_image);

    [TestCase(0x438, new byte[] { 0x53, 0xEF }, "ext4")]
    [TestCase(0, new byte[] { (byte)'X', (byte)'F', (byte)'S', (byte)'B' }, "xfs")]
    [TestCase(0, new byte[] { (byte)'h', (byte)'s', (byte)'q', (byte)'s' }, "squashfs")]
    [TestCase(0x400, new byte[] { 0xE2, 0xE1, 0xF5, 0xE0 }, "erofs")]
    public void DriverOf_ImageWithMagic_IsItsDriver(int offset, byte[] magic, string module)
    {
        Write(offset, magic);
        Assert.That(DiskFileSystem.DriverOf("--root", _image).Module, Is.EqualTo(module));
    }

    // What is at 0x438 is data there, or a part of a random number, and what ext4 leaves as it was.
    [TestCase(0, new byte[] { (byte)'h', (byte)'s', (byte)'q', (byte)'s' }, "squashfs")]
    [TestCase(0, new byte[] { (byte)'X', (byte)'F', (byte)'S', (byte)'B' }, "xfs")]
    [TestCase(0x400, new byte[] { 0xE2, 0xE1, 0xF5, 0xE0 }, "erofs")]
    [TestCase(0x10040, new byte[] { (byte)'_', (byte)'B', (byte)'H', (byte)'R', (byte)'f', (byte)'S', (byte)'_', (byte)'M' }, "ext4")]
    public void DriverOf_ImageThatHasTheTwoBytesOfExt4Too_IsItsDriver(int offset, byte[] magic, string module)
    {
        Write(0x438, [0x53, 0xEF]);
        Write(offset, magic);
        Assert.That(DiskFileSystem.DriverOf("--root", _image).Module, Is.EqualTo(module));
    }

    [Test]
    public void DriverOf_DiskWithPartitions_IsRefusedWithAdvice()
    {
        Write(0x1FE, [0x55, 0xAA]);
        Assert.That(() => DiskFileSystem.DriverOf("--root", _image), Throws.TypeOf<VmmException>().With.Message.Contains("partitions"));
    }

    [Test]
    public void DriverOf_EmptyFile_IsRefused() =>
        Assert.That(() => DiskFileSystem.DriverOf("--root", _image), Throws.TypeOf<VmmException>().With.Message.StartsWith($"--root: {_image} has none"));

    [Test]
    public void DriverOf_Ext4ImageByMkfs_IsExt4()
    {
        using (FileStream file = File.OpenWrite(_image))
            file.SetLength(1 << 20);
        string? mkfs = Array.Find(["/sbin/mkfs.ext4", "/usr/sbin/mkfs.ext4"], File.Exists);
        if (mkfs is null)
            Assert.Ignore("mkfs.ext4 is missing: install e2fsprogs");
        using var process = System.Diagnostics.Process.Start(mkfs!, ["-q", "-F", _image]);
        process.WaitForExit();
        Assert.That(DiskFileSystem.DriverOf("--root", _image), Is.EqualTo(new GuestDriver("ext4", "CONFIG_EXT4_FS")));
    }

    private void Write(int offset, byte[] magic)
    {
        byte[] content = File.ReadAllBytes(_image);
        Array.Resize(ref content, 0x11000);
        magic.CopyTo(content, offset);
        File.WriteAllBytes(_image, content);
    }
}
