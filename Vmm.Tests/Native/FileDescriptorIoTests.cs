using System.Diagnostics;
using NUnit.Framework;
using Tmds.Linux;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Native;

public class FileDescriptorIoTests
{
    [Test]
    public void WriteAll_File_HoldsEverythingInOrder()
    {
        string path = Path.GetTempFileName();
        try
        {
            using (FileDescriptor fd = FileDescriptor.Open(path, OpenMode.CreateTruncate))
            {
                fd.WriteAll("one "u8, "a file");
                fd.WriteAll([], "a file");
                fd.WriteAll("two"u8, "a file");
            }
            Assert.That(File.ReadAllText(path), Is.EqualTo("one two"));
        }
        finally
        {
            File.Delete(path);
        }
    }

    [Test]
    public void Empty_FileAndDevice_LeavesNothingOfTheFile()
    {
        string path = Path.GetTempFileName();
        try
        {
            File.WriteAllText(path, "before");
            using (FileDescriptor fd = FileDescriptor.Open(path, OpenMode.CreateAppend))
                fd.Empty("a file");
            Assert.That(File.ReadAllText(path), Is.Empty);
        }
        finally
        {
            File.Delete(path);
        }
        using FileDescriptor device = FileDescriptor.Open("/dev/null", OpenMode.CreateAppend);
        Assert.That(() => device.Empty("a device"), Throws.Nothing);
        using FileDescriptor unwritable = FileDescriptor.Open("/dev/null", OpenMode.ReadOnly);
        Assert.That(() => unwritable.Empty("a device"), Throws.Nothing);
    }

    [Test]
    public void WriteAll_FullDevice_NamesItInTheError()
    {
        using FileDescriptor fd = FileDescriptor.Open("/dev/full", OpenMode.ReadWrite);
        Assert.That(() => fd.WriteAll("x"u8, "a full device"),
            Throws.TypeOf<ErrnoException>().With.Message.StartsWith("cannot write to a full device: "));
    }

    [Test]
    public void Open_FifoWithoutAReader_DoesNotWaitForOne()
    {
        string path = Path.Combine(Path.GetTempPath(), $"vmm-{Guid.NewGuid():N}");
        using (Process mkfifo = Process.Start("mkfifo", path))
            mkfifo.WaitForExit();
        try
        {
            Assert.That(() => FileDescriptor.Open(path, OpenMode.CreateTruncate),
                Throws.TypeOf<ErrnoException>().With.Message.Contains("a FIFO that nobody reads"));
            using FileDescriptor reader = FileDescriptor.Open(path, OpenMode.ReadNonBlocking);
            using FileDescriptor writer = FileDescriptor.Open(path, OpenMode.CreateTruncate);
            Assert.That(LibC.fcntl(writer.Number, LibC.F_GETFL) & LibC.O_NONBLOCK, Is.Zero, "only the opening does not wait");
        }
        finally
        {
            File.Delete(path);
        }
    }
}
