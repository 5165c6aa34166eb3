using NUnit.Framework;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Native;

public class EventLoopTests
{
    private static readonly TimeSpan s_deadline = TimeSpan.FromSeconds(10);

    [Test]
    public void Add_Signalled_IsCalledUntilRemoved()
    {
        using var loop = new EventLoop();
        using EventFd first = new(), second = new();
        using var called = new SemaphoreSlim(0);
        loop.Add(first, () => { first.Drain(); called.Release(); });
        loop.Add(second, () => { second.Drain(); called.Release(); });

        first.Signal();
        Assert.That(called.Wait(s_deadline));
        second.Signal();
        Assert.That(called.Wait(s_deadline));

        loop.Remove(first);
        first.Signal();
        second.Signal();
        Assert.That(called.Wait(s_deadline));
        Assert.That(first.Drain(), Is.EqualTo(1), "nobody took it");
    }

    [Test]
    public void CallBack_Throws_IsGivenUpAndTheOthersGoOn()
    {
        using var loop = new EventLoop();
        using EventFd bad = new(), good = new();
        using var called = new SemaphoreSlim(0);
        int calls = 0;
        loop.Add(bad, () => { calls++; throw new IOException("broken"); });
        loop.Add(good, () => { good.Drain(); called.Release(); });
        bad.Signal();
        Assert.That(() => Volatile.Read(ref calls), Is.EqualTo(1).After((int)s_deadline.TotalMilliseconds, 5));
        for (int i = 0; i < 3; i++)
        {
            good.Signal();
            Assert.That(called.Wait(s_deadline));
        }
        Assert.That(calls, Is.EqualTo(1));
    }

    [TestCase(typeof(IOException))]
    [TestCase(typeof(InvalidOperationException))]
    [TestCase(typeof(ObjectDisposedException))]
    public void CallBack_ThrowsAnything_EndsWhatDependsOnItAndNothingElse(Type error)
    {
        using var loop = new EventLoop();
        using EventFd bad = new(), good = new();
        using var called = new SemaphoreSlim(0);
        string? reason = null;
        loop.Add(
            bad,
            () => throw (Exception)Activator.CreateInstance(error, "on purpose")!,
            failed: why =>
            {
                reason = why;
                called.Release();
                throw new InvalidOperationException("once more");
            });
        loop.Add(good, () => { good.Drain(); called.Release(); });
        bad.Signal();
        Assert.That(called.Wait(s_deadline));
        Assert.That(reason, Does.Contain("on purpose"));
        good.Signal();
        Assert.That(called.Wait(s_deadline), "the thread goes on");
    }

    [Test]
    public void Descriptor_ClosedBeforeItIsRemoved_IsGivenUp()
    {
        using var loop = new EventLoop();
        using EventFd good = new();
        var bad = new EventFd();
        using var called = new SemaphoreSlim(0);
        loop.Add(bad, () => { }, failed: _ => called.Release());
        loop.Add(good, () => { good.Drain(); called.Release(); });
        bad.Dispose();
        good.Signal();   // the thread waits anew
        Assert.That(called.Wait(s_deadline));
        Assert.That(called.Wait(s_deadline));
    }

    [Test]
    public void Stop_InACallBack_CallsNoOther()
    {
        using EventFd first = new(), second = new();
        using var loop = new EventLoop();
        using var stopped = new SemaphoreSlim(0);
        bool isCalled = false;
        first.Signal();
        second.Signal();
        using var mayBegin = new SemaphoreSlim(0);
        using EventFd begin = new();
        // Both are there before the thread looks.
        loop.Add(begin, () => { begin.Drain(); mayBegin.Wait(); });
        begin.Signal();
        loop.Add(first, () => { loop.Stop(); stopped.Release(); });
        loop.Add(second, () => isCalled = true);
        mayBegin.Release();
        Assert.That(stopped.Wait(s_deadline));
        loop.Dispose();
        Assert.That(isCalled, Is.False, "what it waits for may be closed already");
    }

    [Test]
    public void Dispose_InACallBack_DoesNotWaitForItself()
    {
        using EventFd fd = new();
        using var called = new SemaphoreSlim(0);
        var loop = new EventLoop();
        loop.Add(fd, () =>
        {
            fd.Drain();
            loop.Dispose();
            called.Release();
        });
        fd.Signal();
        Assert.That(called.Wait(s_deadline));
        loop.Dispose();
        loop.Dispose();
    }

    [Test]
    public void Dispose_WithDescriptors_EndsTheThread()
    {
        using EventFd fd = new();
        var loop = new EventLoop();
        loop.Add(fd, () => { });
        loop.Dispose();
        Assert.That(() => loop.Add(fd, () => { }), Throws.TypeOf<ObjectDisposedException>());
    }

    [Test]
    public void Stop_WhileACallBackWaitsForTheCallersLock_Returns()
    {
        using EventFd fd = new();
        using var begun = new SemaphoreSlim(0);
        var gate = new Lock();
        var loop = new EventLoop();
        loop.Add(fd, () =>
        {
            fd.Drain();
            begun.Release();
            lock (gate)
            {
            }
        });
        lock (gate)
        {
            fd.Signal();
            Assert.That(begun.Wait(s_deadline));
            loop.Stop();
        }
        loop.Dispose();
        loop.Remove(fd);
        Assert.That(() => loop.Add(fd, () => { }), Throws.TypeOf<ObjectDisposedException>());
    }

    [Test]
    public void Add_ForHangUpsOnly_IsNotCalledForData()
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using (ours)
        using (theirs)
        using (var loop = new EventLoop())
        using (var called = new SemaphoreSlim(0))
        {
            loop.Add(ours, () => { loop.Remove(ours); called.Release(); }, PollEvents.None);
            theirs.TrySend([1], []);
            Assert.That(called.Wait(TimeSpan.FromMilliseconds(20)), Is.False);
            theirs.Shutdown();
            Assert.That(called.Wait(s_deadline));
        }
    }
}
