using System.Runtime.Versioning;
using NUnit.Framework;
using Vmm.Boot;
using Vmm.Boot.Cache;
using Vmm.Tests.Integration.Linux.Devices;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Tests.Boot.Cache;

/// <summary>What a kernel unpacks to, kept in a directory and found again, or not trusted.</summary>
[SupportedOSPlatform("linux")]
public sealed class KernelCacheTests
{
    private static readonly byte[] s_elf = new ElfBuilder().Build();

    private string _directory = "";
    private TempFile _kernel = null!;

    private string Kept => Directory.GetFiles(_directory).Single();

    private static long Later => DateTimeOffset.UtcNow.ToUnixTimeSeconds() + 60;

    [SetUp]
    public void SetUp()
    {
        _directory = Path.Combine(Path.GetTempPath(), Path.GetRandomFileName());
        PrivateDirectory.Make(_directory);
        _kernel = new TempFile(new BzImageBuilder { Payload = Packer.Pack("lz4", s_elf) }.Build());
    }

    [TearDown]
    public void TearDown()
    {
        _kernel.Dispose();
        Directory.Delete(_directory, recursive: true);
    }

    [TestCaseSource(typeof(Packer), nameof(Packer.Formats))]
    public void Open_EachFormat_KeepsWhatItUnpacksTo(string format)
    {
        using var kernel = new TempFile(new BzImageBuilder { Payload = Packer.Pack(format, s_elf) }.Build());

        Assert.That(Unpack(kernel.Path), Is.EqualTo(s_elf));
        Assert.That(File.GetUnixFileMode(Kept), Is.EqualTo(UnixFileMode.UserRead | UnixFileMode.UserWrite));
        Assert.That(new FileInfo(Kept).Length, Is.LessThan(s_elf.Length), "zeros are not kept");
    }

    [Test]
    public void Open_Again_FindsTheSameFile()
    {
        Unpack(_kernel.Path);
        ulong inode = InodeOf(Kept);

        Assert.That(Unpack(_kernel.Path), Is.EqualTo(s_elf));
        Assert.That(InodeOf(Kept), Is.EqualTo(inode));
    }

    [Test]
    public void Load_KeptKernel_IsPlacedAsAnUnpackedOne()
    {
        for (int boot = 0; boot < 2; boot++)    // the first one keeps it
        {
            var options = new KernelOptions { KernelPath = _kernel.Path, Cache = new KernelCacheOptions(_directory) };
            using KernelFiles files = KernelFiles.Open(options, now: Later);
            Assert.That(files.Kept, Is.Not.Null);
            for (int reset = 0; reset < 2; reset++)
            {
                using GuestMemory memory = Guest.Memory();
                BootEntry entry = KernelLoader.Load(memory, files, options, Guest.Rsdp);
                Assert.That(entry, Is.EqualTo(new BootEntry(BootMode.Long64, ElfBuilder.Text, BootLayout.BootParams)));
                Guest.AssertKernelIsPlaced(memory, s_elf);
            }
        }
    }

    [Test]
    public void Open_AnyByteOfTheFileChanged_IsMadeAnew()
    {
        Unpack(_kernel.Path);
        string name = Kept;
        byte[] sound = File.ReadAllBytes(name);
        for (int i = 0; i < sound.Length; i += i < sound.Length - 256 ? 997 : 1)
        {
            byte[] damaged = [.. sound];
            damaged[i] ^= 0x10;
            File.WriteAllBytes(name, damaged);
            Assert.That(Unpack(_kernel.Path), Is.EqualTo(s_elf), $"byte {i} of {sound.Length}");
            Assert.That(File.ReadAllBytes(Kept), Is.EqualTo(sound), $"byte {i} of {sound.Length}");
        }
    }

    [Test]
    public void Open_FileWrittenInPart_IsMadeAnew()
    {
        Unpack(_kernel.Path);
        string name = Kept;
        byte[] sound = File.ReadAllBytes(name);
        for (int length = 0; length < sound.Length; length += length < sound.Length - 256 ? 997 : 1)
        {
            File.WriteAllBytes(name, sound[..length]);
            Assert.That(Unpack(_kernel.Path), Is.EqualTo(s_elf), $"{length} of {sound.Length} bytes");
            Assert.That(File.ReadAllBytes(Kept), Is.EqualTo(sound), $"{length} of {sound.Length} bytes");
        }
    }

    // What others may write to is not read, although it is sound.
    [TestCase(UnixFileMode.GroupWrite)]
    [TestCase(UnixFileMode.OtherWrite)]
    public void Open_FileThatOthersMayWriteTo_IsMadeAnew(UnixFileMode more)
    {
        Unpack(_kernel.Path);
        ulong inode = InodeOf(Kept);
        File.SetUnixFileMode(Kept, File.GetUnixFileMode(Kept) | more);

        Assert.That(Unpack(_kernel.Path), Is.EqualTo(s_elf));
        Assert.That(InodeOf(Kept), Is.Not.EqualTo(inode));
        Assert.That(File.GetUnixFileMode(Kept), Is.EqualTo(UnixFileMode.UserRead | UnixFileMode.UserWrite));
    }

    [Test]
    public void Open_FileOfAnotherUser_IsMadeAnew()
    {
        RequireRoot();
        Unpack(_kernel.Path);
        ulong inode = InodeOf(Kept);
        ChangeOwner(Kept, 1);

        Assert.That(Unpack(_kernel.Path), Is.EqualTo(s_elf));
        Assert.That(InodeOf(Kept), Is.Not.EqualTo(inode));
    }

    [Test]
    public void Open_SymbolicLinkInTheFilesPlace_IsReplacedAndNotFollowed()
    {
        Unpack(_kernel.Path);
        string name = Kept;
        using var elsewhere = new TempFile(File.ReadAllBytes(name));
        File.SetUnixFileMode(elsewhere.Path, UnixFileMode.UserRead | UnixFileMode.UserWrite);
        File.Delete(name);
        File.CreateSymbolicLink(name, elsewhere.Path);
        byte[] before = File.ReadAllBytes(elsewhere.Path);

        Assert.That(Unpack(_kernel.Path), Is.EqualTo(s_elf));
        Assert.That(new FileInfo(name).LinkTarget, Is.Null);
        Assert.That(File.ReadAllBytes(elsewhere.Path), Is.EqualTo(before));
    }

    [TestCase(UnixFileMode.GroupWrite)]
    [TestCase(UnixFileMode.OtherWrite)]
    public void Open_DirectoryThatOthersMayWriteTo_IsRefused(UnixFileMode more)
    {
        File.SetUnixFileMode(_directory, File.GetUnixFileMode(_directory) | more);
        AssertRefused(_directory, "others may write to it");
    }

    [Test]
    public void Open_DirectoryOfAnotherUser_IsRefused()
    {
        RequireRoot();
        ChangeOwner(_directory, 1);
        AssertRefused(_directory, "another user's");
    }

    [Test]
    public void Open_SymbolicLinkToADirectory_IsRefused()
    {
        string link = _directory + ".link";
        Directory.CreateSymbolicLink(link, _directory);
        try
        {
            AssertRefused(link, "cannot open");
        }
        finally
        {
            File.Delete(link);
        }
    }

    [Test]
    public void Open_DirectoryThatIsNotThere_IsRefused() => AssertRefused(_directory + ".none", "No such file or directory");

    // As a tool does that restores times: size and mtime are as they were.
    [Test]
    public void Open_KernelOfTheSameSizeAndTimeWithOtherContent_IsUnpackedAnew()
    {
        Unpack(_kernel.Path);
        DateTime time = File.GetLastWriteTimeUtc(_kernel.Path);
        byte[] other = [.. s_elf];
        other[ElfBuilder.TextOffset + 0x200] ^= 0xFF;
        byte[] image = new BzImageBuilder { Payload = Packer.Pack("lz4", other) }.Build();
        Assert.That(image, Has.Length.EqualTo(new FileInfo(_kernel.Path).Length));
        Thread.Sleep(20);   // the file system's clock ticks
        File.WriteAllBytes(_kernel.Path, image);
        File.SetLastWriteTimeUtc(_kernel.Path, time);

        Assert.That(Unpack(_kernel.Path), Is.EqualTo(other));
    }

    // A loop device has the same number whatever is mounted from it, and a squashfs image brings the times of its files along.
    [Test]
    public void Open_AnotherKernelWithTheSameNumbersWasKept_IsUnpackedAnew()
    {
        byte[] other = [.. s_elf];
        other[ElfBuilder.TextOffset + 0x200] ^= 0xFF;
        byte[] payload = Packer.Pack("lz4", other);
        using ImageFile file = ImageFile.OpenKernel(_kernel.Path);
        FileVersion version = file.ReadVersion();
        using (var directory = CacheDirectory.Open(new KernelCacheOptions(_directory)))
        {
            string name;
            using (FileDescriptor kept = directory.Create(out name))
            {
                var writer = new CacheFileWriter(kept);
                writer.Write(0, other);
                writer.Finish(version, PageChecksum.Of(payload), other.Length);
            }
            directory.Rename(name, CacheDirectory.NameOf(version));
        }

        Assert.That(Unpack(_kernel.Path), Is.EqualTo(s_elf));
    }

    [Test]
    public void Kept_KernelWrittenToMeanwhile_IsNotUsed()
    {
        var options = new KernelOptions { KernelPath = _kernel.Path, Cache = new KernelCacheOptions(_directory) };
        using KernelFiles files = KernelFiles.Open(options, now: Later);
        Assert.That(files.Kept, Is.Not.Null);
        Thread.Sleep(20);
        File.WriteAllBytes(_kernel.Path, File.ReadAllBytes(_kernel.Path));

        Assert.That(files.Kept, Is.Null);
    }

    // A guest that may write to its user's home can do that, and restart. To read behind the end would end this process.
    [TestCase(true)]
    [TestCase(false)]
    public void Kept_ItsFileCutOffOrWrittenToMeanwhile_IsUnpackedAnew(bool isCutOff)
    {
        var options = new KernelOptions { KernelPath = _kernel.Path, Cache = new KernelCacheOptions(_directory) };
        using KernelFiles files = KernelFiles.Open(options, now: Later);
        for (int boot = 0; boot < 2; boot++)
        {
            using GuestMemory memory = Guest.Memory();
            KernelLoader.Load(memory, files, options, Guest.Rsdp);
            Guest.AssertKernelIsPlaced(memory, s_elf);
            Thread.Sleep(20);   // the file system's clock ticks
            using FileStream file = File.OpenWrite(Kept);
            if (isCutOff)
                file.SetLength(0);
            else
                file.Write(new byte[0x2000]);
        }
    }

    [Test]
    public void Open_KernelChangedJustNow_IsNotKept()
    {
        using ImageFile file = ImageFile.OpenKernel(_kernel.Path);
        using CachedPayload? kept = KernelCache.Open(new KernelCacheOptions(_directory), file, Do, file.ReadVersion().Changed.Seconds + 1);

        Assert.That(kept, Is.Null);
        Assert.That(Directory.GetFiles(_directory), Is.Empty);
    }

    [Test]
    public void Open_DamagedKernel_NamesItAndLeavesNothing()
    {
        byte[] image = File.ReadAllBytes(_kernel.Path);
        BitConverter.TryWriteBytes(image.AsSpan(BzImageBuilder.PayloadStart + 4), 0x7FFFFFFF);
        File.WriteAllBytes(_kernel.Path, image);

        Assert.That(() => Unpack(_kernel.Path), Throws.TypeOf<VmmException>().With.Message.Contains($"{_kernel.Path}: the lz4 payload is corrupt"));
        Assert.That(Directory.GetFiles(_directory), Is.Empty);
    }

    [Test]
    public void Open_VmlinuxOrUnknownCompression_HasNothingToKeep()
    {
        using var vmlinux = new TempFile(s_elf);
        using var unknown = new TempFile(new BzImageBuilder { Payload = [0x89, (byte)'L', (byte)'Z', (byte)'O', .. new byte[100]] }.Build());
        foreach (TempFile kernel in (TempFile[])[vmlinux, unknown])
        {
            using ImageFile file = ImageFile.OpenKernel(kernel.Path);
            Assert.That(KernelCache.Open(new KernelCacheOptions(_directory), file, Do, Later), Is.Null);
        }
        Assert.That(Directory.GetFiles(_directory), Is.Empty);
    }

    [Test]
    public void Write_FullDisk_SaysSoAndGoesOn()
    {
        using FileDescriptor full = FileDescriptor.Open("/dev/full", OpenMode.ReadWrite);
        var writer = new CacheFileWriter(full);

        writer.Write(0, s_elf);
        writer.Finish(default, default, s_elf.Length);

        Assert.That(writer.Errno, Is.EqualTo(Errnos.Enospc));
    }

    [Test]
    public void Trim_MoreThanTheLimit_RemovesWhatWasNotUsedForLongest()
    {
        DateTime now = DateTime.UtcNow;
        const string oldest = "fe01-10-1a2b-5f.0-5f.3b9ac9ff.kernel", newest = "fe01-11-1a2b-5f.0-5f.0.kernel", between = "fe01-12-1a2b-5f.0-5f.0.kernel", unfinished = ".new-0123456789abcdef";
        // The user's own, in a directory that --kernel-cache names.
        string[] others =
        [
            "notes", "vmlinux.kernel", "a-b-c.kernel", ".kernel", "fe01-10-1a2b-5f.0-5f.0.kernel.kernel", "fe01-10-1a2b-5f.0-5f.0.kernel~", "my-fe01-10-1a2b-5f.0-5f.0.kernel",
            "FE01-10-1a2b-5f.0-5f.0.kernel", "fe01-10-1a2b-5f.0-5f..kernel", "00000000000000001-10-1a2b-5f.0-5f.0.kernel", ".new-", ".new-idea", ".new-0123456789abcde", ".new-0123456789abcdef0",
            ".new-0123456789ABCDEF",
        ];
        Make(oldest, 100, now.AddDays(-3));
        Make(newest, 100, now.AddDays(-1));
        Make(between, 100, now.AddDays(-2));
        foreach (string other in others)
            Make(other, 100, now.AddDays(-9));
        Make(unfinished, 100, now);
        using (var directory = CacheDirectory.Open(new KernelCacheOptions(_directory)))
            directory.Trim(DateTimeOffset.UtcNow.ToUnixTimeSeconds(), maxSize: 250);

        Assert.That(Directory.GetFiles(_directory).Select(Path.GetFileName), Is.EquivalentTo((string[])[newest, between, unfinished, .. others]));

        using (var directory = CacheDirectory.Open(new KernelCacheOptions(_directory)))
            directory.Trim(DateTimeOffset.UtcNow.ToUnixTimeSeconds() + 7200, maxSize: 250);

        Assert.That(Directory.GetFiles(_directory).Select(Path.GetFileName), Is.EquivalentTo((string[])[newest, between, .. others]));
    }

    [Test]
    public void MakeOwn_Environment_SaysWhere()
    {
        string home = Path.Combine(_directory, "home");
        string cache = Path.Combine(_directory, "cache");
        Directory.CreateDirectory(home);
        Directory.CreateDirectory(cache);

        Assert.That(CacheDirectory.MakeOwn(cache, home), Is.EqualTo(Path.Combine(cache, "vmm")));
        Assert.That(CacheDirectory.MakeOwn(null, home), Is.EqualTo(Path.Combine(home, ".cache", "vmm")));
        Assert.That(CacheDirectory.MakeOwn("relative", home), Is.EqualTo(Path.Combine(home, ".cache", "vmm")));
        Assert.That(File.GetUnixFileMode(Path.Combine(home, ".cache", "vmm")), Is.EqualTo(UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute));
        Assert.That(() => CacheDirectory.MakeOwn(null, ""), Throws.TypeOf<VmmException>());
    }

    [Test]
    public void MakeOwn_NameThatIsNotUtf8_StaysWhatItIs()
    {
        string odd = Path.Combine(_directory, "odd\udcff");
        Assert.That(CacheDirectory.MakeOwn(odd, null), Is.EqualTo(Path.Combine(odd, "vmm")));
        Assert.That(FileKind.Identity(Path.Combine(odd, "vmm")), Is.Not.Null);
        using var directory = CacheDirectory.Open(new KernelCacheOptions(Path.Combine(odd, "vmm")));
        directory.Create(out string name).Dispose();
        directory.Rename(name, "a.kernel");
        directory.Create(out string unfinished).Dispose();
        directory.Trim(DateTimeOffset.UtcNow.ToUnixTimeSeconds() + 7200);
        Assert.That(FileKind.Identity(Path.Combine(odd, "vmm", "a.kernel")), Is.Not.Null);
        Assert.That(FileKind.Identity(Path.Combine(odd, "vmm", unfinished)), Is.Null);
        HostCommand.Run("find", _directory, "-mindepth", "1", "-delete");     // what .NET cannot
    }

    [Test]
    public void Structures_HaveTheSizesOfTheFormat()
    {
        Assert.That(System.Runtime.CompilerServices.Unsafe.SizeOf<CacheFooter>(), Is.EqualTo(CacheFooter.WireSize));
        Assert.That(CacheFooter.WireSize % PageChecksum.Step, Is.Zero);
        Assert.That(System.Runtime.CompilerServices.Unsafe.SizeOf<PageRun>(), Is.EqualTo(8));
    }

    private static void Do(Action action) => action();

    private byte[] Unpack(string kernel)
    {
        using ImageFile file = ImageFile.OpenKernel(kernel);
        using CachedPayload? kept = KernelCache.Open(new KernelCacheOptions(_directory), file, Do, Later);
        Assert.That(kept, Is.Not.Null);
        var sink = new ArraySink(kept!.Length);
        kept.CopyTo(sink);
        return sink.Bytes;
    }

    private void AssertRefused(string directory, string why)
    {
        using ImageFile file = ImageFile.OpenKernel(_kernel.Path);
        Assert.That(
            () => KernelCache.Open(new KernelCacheOptions(directory), file, Do, Later),
            Throws.TypeOf<VmmException>().With.Message.StartsWith("--kernel-cache: ").And.Message.Contains(why).And.Message.Contains(directory));
    }

    private void Make(string name, int size, DateTime used)
    {
        string path = Path.Combine(_directory, name);
        File.WriteAllBytes(path, new byte[size]);
        File.SetLastAccessTimeUtc(path, used);
        File.SetLastWriteTimeUtc(path, used);
    }

    private static ulong InodeOf(string path)
    {
        using var file = RegularFile.OpenRead(path);
        return file.ReadVersion().Inode;
    }

    private static void RequireRoot()
    {
        if (!Environment.IsPrivilegedProcess)
            Assert.Ignore("only root can give a file to another user");
    }

    private static void ChangeOwner(string path, uint user)
    {
        using FileDescriptor file = FileDescriptor.Open(path, OpenMode.ReadOnly);
        using HeldDescriptor held = file.Hold();
        Assert.That(FileTree.ChangeOwner(held, user, uint.MaxValue), Is.Zero);
    }
}
