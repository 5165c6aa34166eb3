using NUnit.Framework;
using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.Confinement;

namespace Vmm.Tests.Native.Confinement;

public class EveryThreadTests
{
    // The runtime that runs tests has more threads than a native binary, and none of them can be reached.
    [Test]
    public void Do_WithAThreadThatBeganBefore_ReachesBothAndThrows()
    {
        var threads = new List<int>();
        VhostException error = Assert.Throws<VhostException>(() => EveryThread.Do(() =>
        {
            lock (threads)
                threads.Add(NativeThread.CurrentId);
        }))!;
        Assert.That(error.Message, Does.StartWith("cannot confine all of the threads ").And.EndWith("or do not confine this process"));
        Assert.That(threads, Has.Count.EqualTo(2));
        Assert.That(threads, Is.Unique.And.Contain(NativeThread.CurrentId));
    }

    [Test]
    public void Do_ActionThatFails_Throws() =>
        Assert.Throws<ErrnoException>(() => EveryThread.Do(() => throw new ErrnoException("capset", Errnos.Eperm)));

    [Test]
    public void Do_ActionThatFailsOnTheRuntimesThread_Throws()
    {
        int main = NativeThread.CurrentId;
        Assert.Throws<ErrnoException>(() => EveryThread.Do(() =>
        {
            if (NativeThread.CurrentId != main)
                throw new ErrnoException("capset", Errnos.Eperm);
        }));
    }
}
