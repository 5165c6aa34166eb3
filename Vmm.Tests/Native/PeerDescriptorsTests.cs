using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Native;

[TestFixture]
[NonParallelizable]     // no such thread of the process begins meanwhile
public sealed class PeerDescriptorsTests
{
    // Peers hold up all the threads that there are while the host allows no other one.
    [Test]
    public void Close_ThreadWasRefusedBefore_IsDoneOnceThereIsOneAgain()
    {
        HostileDescriptor[] hostile = [.. Enumerable.Range(0, 4).Select(_ => new HostileDescriptor())];
        try
        {
            NativeThread.Starter = start => throw NativeThread.Refused("closer");
            foreach (HostileDescriptor each in hostile)
                Close(new PeerDescriptors(), each.File);
            Thread.Sleep(200);      // all closers that there are have begun
            NativeThread.Starter = null;
            var peer = new PeerDescriptors();
            (UnixSocket first, UnixSocket second) = UnixSocket.Pair();
            using (second)
            {
                Close(peer, first);
                Span<PollEntry> entries = [new PollEntry(second, PollEvents.Readable)];
                Poll.Wait(entries, (int)HostileDescriptor.Patience.TotalMilliseconds);
                Assert.That(entries[0].Happened & PollEvents.HangUp, Is.EqualTo(PollEvents.HangUp), "it was closed");
            }
        }
        finally
        {
            NativeThread.Starter = null;
            foreach (HostileDescriptor each in hostile)
                each.Dispose();
        }
    }

    private static void Close(PeerDescriptors peer, FileDescriptor descriptor)
    {
        int number = descriptor.Number;
        descriptor.SetHandleAsInvalid();
        peer.Close(number);
    }
}
