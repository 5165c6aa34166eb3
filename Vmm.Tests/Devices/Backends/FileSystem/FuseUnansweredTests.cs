using System.Runtime.Versioning;
using NUnit.Framework;
using Vmm.Devices.Backends.FileSystem;
using Vmm.Tests.Fakes;
using static Vmm.Tests.Conformance.FuseClient;

namespace Vmm.Tests.Devices.Backends.FileSystem;

/// <summary>Requests that have no answer: FUSE_INTERRUPT and FUSE_BATCH_FORGET.</summary>
[SupportedOSPlatform("linux")]
public class FuseUnansweredTests : FileSystemTest
{
    private const uint InterruptCode = 36, BatchForgetCode = 42;
    private const int Interrupted = -4, Stale = -116;

    [TestCase(false)]
    [TestCase(true)]
    public void Interrupt_OfALockThatIsWaitedFor_EndsTheWait(bool isFlock)
    {
        FuseGuest guest = Begin();
        (ulong node, ulong handle) = guest.Create(FuseGuest.Root, "file");
        ulong second = (ulong)guest.Open(node);
        Assert.That(guest.Lock(node, handle, owner: 1, type: 1, isFlock), Is.Zero);
        var waiting = new PendingRequest(guest, 33, node, FuseGuest.LockArguments(second, 2, 1, isFlock));
        Assert.That(guest.TryAttributes(node), Is.Zero, "it waits, and others go on");
        Interrupt(PendingRequest.Number + 1);
        Assert.That(guest.TryAttributes(node), Is.Zero);
        Assert.That(waiting.HasEnded, Is.False, "another was meant");

        // Again and again: the queue of the other kind has a thread of its own, which may not have come to the lock yet.
        Eventually.True(
            () =>
            {
                Interrupt(PendingRequest.Number);
                return waiting.HasEnded;
            },
            () => "it is still waited for");

        Assert.That(waiting.Await(), Is.EqualTo(Interrupted));
        // It does not get the lock afterwards.
        Assert.That(guest.Lock(node, handle, owner: 1, type: 2, isFlock), Is.Zero);
        ulong third = (ulong)guest.Open(node);
        Assert.That(guest.Lock(node, third, owner: 3, type: 1, isFlock), Is.Zero, "nobody has it");

        // On a request queue: the queue of the other kind has the request that waits.
        void Interrupt(ulong number) => guest.Fuse.Tell(InterruptCode, 0, Bytes(number));
    }

    [Test]
    public void BatchForget_AllThatWasLookedUp_LeavesTheRoot()
    {
        const int files = 100;
        for (int i = 0; i < files; i++)
            File.WriteAllText(In($"f{i}"), "");
        using var server = new FuseServer(new FileSystemOptions { Directory = Shared, PoolSize = 0 });
        using var pool = new RequestPool(server, 0);
        using var device = new FuseDevice(server, pool);
        using var ring = new DeviceRing(device, 0);
        Ask(FuseDevice.Init, 64);
        ulong[] nodes = [.. Enumerable.Range(0, files).Select(i => U64(Ask(FuseDevice.Request(1, FuseGuest.Root, Name($"f{i}")), FuseGuest.EntrySize), 16))];
        Ask(FuseDevice.Request(1, FuseGuest.Root, Name("f0")), FuseGuest.EntrySize);
        Assert.That(server.Count.Files, Is.EqualTo(1 + files));

        Forget((uint)files, [.. nodes.Select(node => (node, 1UL))]);
        Assert.That(server.Count.Files, Is.EqualTo(2), "one was looked up twice");
        // More than there are, one that is not known, and more look-ups than there were.
        Forget(uint.MaxValue, (nodes[1], 1), (nodes[0], ulong.MaxValue), (FuseGuest.Root, ulong.MaxValue));
        Assert.That(server.Count, Is.EqualTo((1, 0, 0)), "files, descriptors and openings");
        Assert.That(U32(Ask(FuseDevice.Request(3, nodes[0], Bytes(0UL, 0UL)), FuseGuest.AttributesSize), 4), Is.EqualTo(unchecked((uint)Stale)));
        Assert.That(U32(Ask(FuseDevice.Request(3, FuseGuest.Root, Bytes(0UL, 0UL)), FuseGuest.AttributesSize), 4), Is.Zero);

        byte[] Ask(byte[] request, int room)
        {
            ring.Add(request, [40], 16 + room);
            return ring.Await();
        }

        void Forget(uint count, params (ulong Node, ulong Lookups)[] all)
        {
            ring.AddData(FuseDevice.Request(BatchForgetCode, 0, [.. Bytes(count, 0U), .. all.SelectMany(one => Bytes(one.Node, one.Lookups))]), 40);
            Assert.That(ring.Await(), Is.Empty);
        }
    }
}
