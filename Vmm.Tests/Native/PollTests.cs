using NUnit.Framework;
using Tmds.Linux;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Native;

public class PollTests
{
    [Test]
    public void Wait_InterruptedByASignal_EndsAsIfTheTimeHadPassed()
    {
        using var never = new EventFd();
        int thread = 0, result = -1;
        Exception? error = null;
        var waiting = new Thread(() =>
        {
            Volatile.Write(ref thread, NativeThread.CurrentId);
            try
            {
                result = Poll.Wait([new PollEntry(never, PollEvents.Readable)], -1);
            }
            catch (IOException e)
            {
                error = e;
            }
        });
        waiting.Start();
        Eventually.True(() => Volatile.Read(ref thread) != 0, () => "the thread does not start");
        // The runtime has a handler of this one, which does nothing; again, in case the thread was not waiting yet.
        Eventually.True(
            () =>
            {
                NativeThread.Send(thread, LibC.SIGCONT);
                return waiting.Join(10);
            },
            () => "the wait goes on");
        Assert.That(error, Is.Null);
        Assert.That(result, Is.Zero);
    }
}
