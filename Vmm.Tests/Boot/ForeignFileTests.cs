using System.Diagnostics;
using NUnit.Framework;
using Vmm.Boot;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Boot;

public sealed class ForeignFileTests
{
    private static IEnumerable<TestCaseData> Foreign()
    {
        yield return Case("Script", "#!/bin/sh\necho no kernel\n"u8.ToArray(), "is a script");
        yield return Case("Png", [0x89, (byte)'P', (byte)'N', (byte)'G', 13, 10, 26, 10, 0, 0, 0, 13], "is a PNG image");
        yield return Case("Gzip", [0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 0], "is a gzip file");
        yield return Case("Text", "hello"u8.ToArray(), "is a text file");
        yield return Case("Cpio", "070701000000000000000000"u8.ToArray(), "is a cpio archive");
        yield return Case("Zeros", new byte[4096], "is of an unknown kind; a 64-bit x86 bzImage or ELF vmlinux is needed");
        yield return Case("Empty", [], "is empty");
        byte[] arm64 = new byte[4096];
        "ARM\x64"u8.CopyTo(arm64.AsSpan(56));
        yield return Case("Arm64Image", arm64, "is an arm64 kernel Image");
        yield return Case("Elf32", Elf(1, 3), "an ELF file for i386 (32-bit); a 64-bit x86 kernel is needed");
        yield return Case("ElfArm64", Elf(2, 183), "an ELF file for arm64 (64-bit)");
        yield return Case("ElfObject", Elf(2, 62, 1), "e_type is 1");

        static TestCaseData Case(string name, byte[] content, string expected) => new TestCaseData(content, expected).SetName(name);
    }

    [TestCaseSource(nameof(Foreign))]
    public void Load_ForeignFile_SaysWhatItIs(byte[] content, string expected)
    {
        using var file = new TempFile(content);
        using GuestMemory memory = Guest.Memory();

        Assert.That(
            () => Guest.Load(memory, file),
            Throws.TypeOf<VmmException>().With.Message.Contains(file.Path).And.Message.Contains(expected).And.Message.Not.Contains("\n"));
    }

    // A guest may restart long after its kernel was opened.
    [Test]
    public void Map_FileThatHasBecomeShorter_IsRefused()
    {
        using var file = new TempFile(new byte[20_000]);
        using ImageFile image = ImageFile.OpenKernel(file.Path);
        using (MappedFile whole = image.Map())
            Assert.That(whole, Is.Not.Null);
        using (FileStream stream = File.OpenWrite(file.Path))
            stream.SetLength(5000);
        Assert.That(image.Map, Throws.TypeOf<VmmException>().With.Message.StartsWith($"kernel {file.Path}: has become shorter, 5000 bytes and not 20000: "));
    }

    [TestCase("/dev/zero", "is a character device, not a file: check --kernel")]
    [TestCase("/", "is a directory, not a file: check --kernel")]
    [TestCase("/no/such/kernel", "No such file or directory (errno 2): check --kernel")]
    public void Load_NoRegularFile_SaysSo(string path, string expected)
    {
        using GuestMemory memory = Guest.Memory();

        Assert.That(
            () => Guest.Load(memory, new KernelOptions { KernelPath = path }),
            Throws.TypeOf<VmmException>().With.Message.Contains(path).And.Message.EndsWith(expected));
    }

    [Test]
    [CancelAfter(5000)]
    public void Load_Fifo_DoesNotWaitForAWriter()
    {
        string path = Path.Combine(Path.GetTempPath(), Path.GetRandomFileName());
        using (Process process = Process.Start("mkfifo", [path]))
            process.WaitForExit();
        using GuestMemory memory = Guest.Memory();
        try
        {
            Assert.That(
                () => Guest.Load(memory, new KernelOptions { KernelPath = path }),
                Throws.TypeOf<VmmException>().With.Message.Contains("is a FIFO"));
        }
        finally
        {
            File.Delete(path);
        }
    }

    private static byte[] Elf(byte bits, ushort machine, ushort type = 2)
    {
        byte[] elf = new ElfBuilder().Build();
        elf[4] = bits;
        ElfBuilder.U16(elf, 16, type);
        ElfBuilder.U16(elf, 18, machine);
        return elf;
    }
}
