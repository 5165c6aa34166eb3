using NUnit.Framework;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Native;

public sealed class ResourceLimitTests
{
    // Some daemons close every descriptor that they may have, one by one: a million takes its time.
    [Test]
    public void Raise_ThenStartAChild_GivesTheChildWhatWasBefore()
    {
        ulong maximum = ResourceLimit.OpenFiles.Maximum!.Value;
        ulong before = ResourceLimit.OpenFiles.Current!.Value;
        ulong inherited = ResourceLimit.OpenFiles.Inherited!.Value;
        Assert.That(inherited, Is.LessThanOrEqualTo(maximum));
        try
        {
            ResourceLimit.OpenFiles.TrySet(Math.Min(maximum, 4000));
            ResourceLimit.OpenFiles.Raise();
            Assert.That(ResourceLimit.OpenFiles.Current, Is.EqualTo(maximum));
            ulong expected = ResourceLimit.OpenFiles.Inherited!.Value;
            using FileDescriptor nothing = FileDescriptor.Open("/dev/null", OpenMode.ReadOnly);
            using ChildProcess child = ChildProcess.Start("/bin/sh", ["-c", "sleep 1; ulimit -Sn; ulimit -Hn"], nothing);
            Assert.That(child.WaitForEnd(30_000));
            byte[] output = new byte[100];
            int count = child.Output.TryRead(output);
            Assert.That(
                System.Text.Encoding.UTF8.GetString(output, 0, Math.Max(count, 0)).Split('\n', StringSplitOptions.RemoveEmptyEntries),
                Is.EqualTo(new[] { $"{expected}", $"{maximum}" }));
        }
        finally
        {
            ResourceLimit.OpenFiles.TrySet(before);
        }
    }

    [Test]
    public void Start_ChildThatRaisesItsLimit_BeginsWithOurs()
    {
        ulong before = ResourceLimit.OpenFiles.Current!.Value;
        try
        {
            ResourceLimit.OpenFiles.TrySet(Math.Min(ResourceLimit.OpenFiles.Maximum!.Value, 4000));
            ResourceLimit.OpenFiles.Raise();
            using FileDescriptor nothing = FileDescriptor.Open("/dev/null", OpenMode.ReadOnly);
            using ChildProcess child = ChildProcess.Start("/bin/sh", ["-c", "sleep 1; ulimit -Sn"], nothing, isOwn: true);
            Assert.That(child.WaitForEnd(30_000));
            byte[] output = new byte[100];
            int count = child.Output.TryRead(output);
            Assert.That(System.Text.Encoding.UTF8.GetString(output, 0, Math.Max(count, 0)), Is.EqualTo($"{ResourceLimit.OpenFiles.Maximum}\n"));
        }
        finally
        {
            ResourceLimit.OpenFiles.TrySet(before);
        }
    }

    [Test]
    public void SetInherited_ChildThatHasSetItsLimit_LeavesIt()
    {
        ulong before = ResourceLimit.OpenFiles.Current!.Value;
        try
        {
            ResourceLimit.OpenFiles.Raise();
            (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
            using (ours)
            using (theirs)
            {
                using ChildProcess child = ChildProcess.Start(
                    "/bin/sh", ["-c", "ulimit -Sn 77; echo set; read -r line <&3; ulimit -Sn"], theirs, isOwn: true);
                byte[] output = new byte[100];
                Assert.That(Poll.Wait([new PollEntry(child.Output, PollEvents.Readable)], 30_000), Is.EqualTo(1));
                Assert.That(child.Output.TryRead(output), Is.EqualTo(4), "set");
                ResourceLimit.OpenFiles.SetInherited(child.Id);
                Assert.That(ours.TrySend("go\n"u8, []), Is.EqualTo(3));
                Assert.That(child.WaitForEnd(30_000));
                int count = child.Output.TryRead(output);
                Assert.That(System.Text.Encoding.UTF8.GetString(output, 0, Math.Max(count, 0)), Is.EqualTo("77\n"));
            }
        }
        finally
        {
            ResourceLimit.OpenFiles.TrySet(before);
        }
    }

    [Test]
    public void Error_OutOfDescriptors_NamesTheLimit()
    {
        ulong before = ResourceLimit.OpenFiles.Current!.Value;
        ErrnoException? error;
        ResourceLimit.OpenFiles.TrySet(3);
        try
        {
            error = Assert.Throws<ErrnoException>(() => new EventFd().Dispose());
        }
        finally
        {
            ResourceLimit.OpenFiles.TrySet(before);
        }
        Assert.That(error!.IsShortage);
        Assert.That(error.Message, Does.Contain("this process may have 3 descriptors: raise the hard limit"));
    }
}
