using NUnit.Framework;
using Tmds.Linux;
using Vmm.Tests.Boot;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Fakes;

/// <summary>Files that a program opens after it has closed something: they get the numbers that became free.</summary>
internal sealed class OtherFiles : IDisposable
{
    private readonly TempFile _file = new([]);
    private readonly List<FileDescriptor> _files = [];

    public OtherFiles()
    {
        for (int i = 0; i < 32; i++)
            _files.Add(FileDescriptor.Open(_file.Path, OpenMode.ReadWrite));
    }

    /// <summary>All of them are open, and nobody has written, read or changed one.</summary>
    public void AssertUntouched()
    {
        Assert.That(new FileInfo(_file.Path).Length, Is.Zero, "somebody wrote to it");
        foreach (FileDescriptor file in _files)
        {
            Assert.That(LibC.fcntl(file.Number, LibC.F_GETFL) & (LibC.O_ACCMODE | LibC.O_NONBLOCK), Is.EqualTo((int)LibC.O_RDWR), "somebody closed or changed it");
            Assert.That((long)LibC.lseek(file.Number, 0, LibC.SEEK_CUR), Is.Zero);
        }
    }

    public void Dispose()
    {
        _files.ForEach(file => file.Dispose());
        _file.Dispose();
    }
}
