using System.Runtime.Versioning;
using NUnit.Framework;
using Vmm.Tests.Conformance;
using Vmm.Tests.Fakes;
using Vmm.Tests.Integration;
using static Vmm.Tests.Conformance.FuseClient;

namespace Vmm.Tests.Devices.Backends.FileSystem;

/// <summary>A guest that asks for the same files on two request queues, with a thread each, at the same time.</summary>
[SupportedOSPlatform("linux")]
public class FuseQueueTests : FileSystemTest
{
    private const int Rounds = 400;

    private readonly Lock _priority = new();    // the one queue that both threads use

    [Test]
    public void Requests_OnTwoQueuesAtOnce_AreRightAndLeaveNothing()
    {
        VmmProcess process = Serve("--queues", "2");
        using var guest = new FuseGuest(SocketPath, queues: 2);
        FuseClient[] clients = [guest.Fuse, guest.On(2)];
        ulong directory = guest.MakeDirectory(FuseGuest.Root, "both");
        (ulong counter, ulong handle) = guest.Create(directory, "counter");
        guest.Fuse.Write(counter, handle, 0, new byte[sizeof(ulong)]);
        Both(rounds: 5);     // what is made once is there from here on
        int before = Directory.GetFiles($"/proc/{process.Id}/fd").Length;

        List<ulong> nodes = Both(Rounds);

        Assert.That(BitConverter.ToUInt64(File.ReadAllBytes(In("both/counter"))), Is.EqualTo(2 * (5 + Rounds)), "each has added under the lock");
        Assert.That(Directory.GetFileSystemEntries(In("both")).Select(Path.GetFileName), Is.EqualTo(new[] { "counter" }));
        Assert.That(guest.Fuse.List(directory), Is.EqualTo(new[] { "counter" }), "the guest sees the same");
        foreach (ulong node in nodes)
            Assert.That(guest.TryAttributes(node), Is.EqualTo(-116), "ESTALE: all of it is forgotten");
        Eventually.True(() => Directory.GetFiles($"/proc/{process.Id}/fd").Length == before, () => "descriptors are left behind");

        List<ulong> Both(int rounds)
        {
            using var start = new Barrier(clients.Length);
            Task<List<ulong>>[] workers = [.. clients.Select((client, worker) => Task.Run(() =>
            {
                start.SignalAndWait();
                return Work(client, worker, directory, counter, rounds);
            }))];
            Task.WaitAll(workers);
            return [.. workers.SelectMany(worker => worker.Result)];
        }
    }

    // Returns the nodes of all that it made.
    private List<ulong> Work(FuseClient client, int worker, ulong directory, ulong counter, int rounds)
    {
        var random = new Random(worker);
        var nodes = new List<ulong>();
        ulong counterHandle = Open(client, counter);
        for (int round = 0; round < rounds; round++)
        {
            // A file of its own.
            string name = $"{worker}.{round}", newName = $"moved {worker}.{round}";
            (ulong node, ulong handle) = client.Create(directory, name);
            byte[] data = new byte[random.Next(1, 50_000)];
            random.NextBytes(data);
            client.Write(node, handle, 0, data);
            client.Rename(directory, name, directory, newName);
            Assert.That(client.Read(node, handle, 0, (uint)data.Length + 1), Is.EqualTo(data));
            Assert.That((client.Lookup(directory, newName, out ulong found, out ulong size), found, size), Is.EqualTo((0, node, (ulong)data.Length)));
            Assert.That(client.Lookup(directory, name, out _, out _), Is.EqualTo(NoEntry), "its old name");
            client.Unlink(directory, newName);
            client.Release(node, handle);
            Forget(client, node, 2);
            nodes.Add(node);

            MeetTheOther(client, worker, directory, nodes);
            Add(client, worker, counter, counterHandle);
        }
        client.Release(counter, counterHandle);
        return nodes;
    }

    // A file that both make and remove: what is read was written by one of them.
    private void MeetTheOther(FuseClient client, int worker, ulong directory, List<ulong> nodes)
    {
        int error = client.Try(35, directory, [.. Bytes(0x42U, 0x81A4U, 0U, 0U), .. Name("met")], FuseGuest.EntrySize + 16, out byte[] reply);
        Assert.That(error, Is.Zero.Or.EqualTo(NoEntry), "it was there, and the other has removed it just then");
        if (error != 0)
            return;
        (ulong node, ulong handle) = (U64(reply, 0), U64(reply, FuseGuest.EntrySize));
        client.Write(node, handle, 0, [(byte)worker]);
        Assert.That(client.Read(node, handle, 0, 10), Is.EqualTo(new byte[] { 0 }).Or.EqualTo(new byte[] { 1 }));
        Assert.That(client.Try(10, directory, Name("met"), 0, out _), Is.Zero.Or.EqualTo(NoEntry));
        client.Release(node, handle);
        Forget(client, node, 1);
        nodes.Add(node);
    }

    // Adds one to a number, and waits for the lock for it.
    private static void Add(FuseClient client, int worker, ulong node, ulong handle)
    {
        ulong owner = (ulong)worker + 1;
        Assert.That(client.Try(33, node, FuseGuest.LockArguments(handle, owner, type: 1), 0, out _), Is.Zero, "the lock");
        ulong number = BitConverter.ToUInt64(client.Read(node, handle, 0, sizeof(ulong)));
        client.Write(node, handle, 0, BitConverter.GetBytes(number + 1));
        Assert.That(client.Try(32, node, FuseGuest.LockArguments(handle, owner, type: 2), 0, out _), Is.Zero, "unlock");
    }

    private static ulong Open(FuseClient client, ulong node)
    {
        Assert.That(client.Try(14, node, Bytes(2U, 0U), 16, out byte[] reply), Is.Zero);
        return U64(reply, 0);
    }

    private void Forget(FuseClient client, ulong node, ulong lookups)
    {
        lock (_priority)
            client.Forget(node, lookups);
    }
}
