using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Tests.Guest;
using Vmm.Tests.Integration.Linux.Devices;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Native;

[System.Runtime.Versioning.SupportedOSPlatform("linux")]
public sealed class FileDescriptorTests
{
    [Test]
    public void Open_FifoThatNobodyReads_SaysSo()
    {
        using var host = new HostTree();
        HostCommand.Run("mkfifo", host.In("fifo"));
        Assert.That(() => FileDescriptor.Open(host.In("fifo"), OpenMode.CreateAppend), Throws.TypeOf<ErrnoException>().With.Message.EqualTo(
            $"cannot open {host.In("fifo")}: No such device or address (errno 6): it is a FIFO that nobody reads, or a socket: start the reader first, or give another path"));
    }

    [Test]
    public void IsCloseOnExec_AnInheritedDescriptor_IsNot()
    {
        using var own = new EventFd();
        using var inherited = new FileDescriptor(Duplicate.Of(own));
        Assert.That(FileDescriptor.IsCloseOnExec(own.Number), Is.True);
        Assert.That(FileDescriptor.IsCloseOnExec(inherited.Number), Is.False);
        Assert.That(FileDescriptor.IsCloseOnExec(1_000_000), Is.False, "of nothing");
    }

    [Test]
    public void Open_TerminalThatThisProcessDoesNotHave_SaysSo()
    {
        try
        {
            FileDescriptor.Open("/dev/tty", OpenMode.ReadOnly).Dispose();
            Assert.Ignore("this process has a terminal");
        }
        catch (ErrnoException)
        {
            Assert.That(() => FileDescriptor.Open("/dev/tty", OpenMode.CreateAppend), Throws.TypeOf<ErrnoException>().With.Message.EqualTo(
                "cannot open /dev/tty: No such device or address (errno 6): there is no such device or terminal for this process: give another path"));
        }
    }
}
