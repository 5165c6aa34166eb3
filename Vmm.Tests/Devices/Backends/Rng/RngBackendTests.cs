using System.Diagnostics;
using System.Runtime.InteropServices;
using NUnit.Framework;
using Vmm.Devices.Backends.Rng;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Backend;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Tests.Devices.Backends.Rng;

public class RngBackendTests
{
    [TestCase(64, 1)]
    [TestCase(4096, 1)]
    [TestCase(100, 3)]
    public void Process_Buffers_AreFilledWithRandomBytes(int length, int pieces)
    {
        using var device = new RngBackend(RngBackend.DefaultSource, null);
        using var ring = new DeviceRing(device, 0);
        var seen = new HashSet<string>();
        for (int i = 0; i < 10; i++)
        {
            ring.AddRoom([.. Enumerable.Repeat(length / pieces, pieces)]);
            byte[] data = ring.Await();
            Assert.That(data, Has.Length.InRange(1, length));
            Assert.That(seen.Add(Convert.ToHexString(data)), "the same twice");
        }
    }

    [Test]
    public void Process_BufferWithoutRoom_ComesBackEmpty()
    {
        using var device = new RngBackend(RngBackend.DefaultSource, null);
        using var ring = new DeviceRing(device, 0);
        ring.AddData([1, 2, 3]);
        Assert.That(ring.Await(), Is.Empty);
    }

    [Test]
    public void Process_Limit_IsKept()
    {
        using var device = new RngBackend(RngBackend.DefaultSource, 20_000);
        using var ring = new DeviceRing(device, 0);
        long start = Stopwatch.GetTimestamp();
        int total = 0;
        while (total < 10_000)
        {
            ring.AddRoom(1000);
            while (ring.Take() is not { } data || (total += data.Length) == 0)
            {
                if (ring.Ready is { } ready)
                    Assert.That(Poll.Wait([new PollEntry(ready, PollEvents.Readable)], 5000), Is.EqualTo(1));
                ring.Process();
            }
        }
        // All but the first burst of 2000 has to be waited for.
        Assert.That(Stopwatch.GetElapsedTime(start), Is.GreaterThan(TimeSpan.FromSeconds(0.35)));
    }

    [Test]
    public void Process_SourceThatHasNothingYet_IsWaitedFor()
    {
        using var pipe = new Fakes.Pipe();
        using var device = new RngBackend($"/proc/self/fd/{pipe.Reader.Number}", null);
        using var ring = new DeviceRing(device, 0);
        ring.AddRoom(16);
        ring.Process();
        Assert.That(ring.Take(), Is.Null);
        Assert.That(ring.Ready, Is.Not.Null);
        pipe.Writer.WriteAll("random"u8, "pipe");
        Assert.That(ring.Await(), Is.EqualTo("random"u8.ToArray()));
    }

    [Test]
    public void Process_FifoThatNobodyWritesToYet_IsTriedAgain()
    {
        string path = Path.Combine(Path.GetTempPath(), $"vmm-fifo-{Guid.NewGuid():n}");
        using (System.Diagnostics.Process process = System.Diagnostics.Process.Start("mkfifo", [path]))
            process.WaitForExit();
        try
        {
            using var device = new RngBackend(path, null);
            using var ring = new DeviceRing(device, 0);
            ring.AddRoom(16);
            ring.Process();
            Assert.That(ring.Take(), Is.Null);
            Assert.That(ring.Ready, Is.Not.Null, "it waits for the next attempt");
            using FileDescriptor writer = FileDescriptor.Open(path, OpenMode.ReadWrite);
            writer.WriteAll("random"u8, "the FIFO");
            Assert.That(Poll.Wait([new PollEntry(ring.Ready, PollEvents.Readable)], 20_000), Is.EqualTo(1));
            Assert.That(ring.Await(), Is.EqualTo("random"u8.ToArray()));
        }
        finally
        {
            File.Delete(path);
        }
    }

    [Test]
    public void Process_SourceAtItsEnd_GivesNothingTwice()
    {
        string path = Path.GetTempFileName();
        try
        {
            File.WriteAllText(path, "once");
            using var device = new RngBackend(path, null);
            using var ring = new DeviceRing(device, 0);
            ring.AddRoom(16);
            Assert.That(ring.Await(), Is.EqualTo("once"u8.ToArray()));
            ring.AddRoom(16);
            ring.Process();
            ring.Process();
            Assert.That(ring.Take(), Is.Null);
            Assert.That(ring.Ready, Is.Null, "nothing to wait for, and nothing to spin on");
        }
        finally
        {
            File.Delete(path);
        }
    }

    // The front-end gives the next process the memory in which the one before it has written down how far it was.
    [Test]
    public void Process_FileInAnotherProcess_GoesOnBehindWhatWasGivenOut()
    {
        const int room = 64;
        string path = Path.GetTempFileName();
        byte[] content = new byte[40_000];
        new Random(1).NextBytes(content);
        File.WriteAllBytes(path, content);
        using var memory = GuestMemory.Create([(new(FrontEndDriver.GuestBase), FrontEndDriver.MemorySize)]);
        FileDescriptor? log = null;
        InflightPayload payload = default;
        try
        {
            int end = 0;
            for (int life = 0; life < 4; life++)
            {
                byte[] bytes = Read(life);
                int at = content.AsSpan().IndexOf(bytes);
                Assert.That(at, Is.GreaterThanOrEqualTo(end), $"process {life} gives out what was given out before");
                end = at + room;
            }
        }
        finally
        {
            log?.Dispose();
            File.Delete(path);
        }

        byte[] Read(int life)
        {
            using var device = new RngBackend(path, null);
            FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(device, memory: memory);
            frontEnd.Negotiate(0, VhostUserProtocolFeatures.InflightShmFd);
            frontEnd.ShareMemory();
            if (log is null)
                payload = LostRequests.GetLog(frontEnd, 1, 16, out log);
            Assert.That(frontEnd.Ask(VhostUserRequest.SetInflightFd, in payload, log), Is.Zero);
            using FrontEndRing ring = frontEnd.Ring(0);
            for (ulong i = 0; i < 0x1000; i += 8)
                memory.Write(ring.Queue.Layout.DriverArea + i, 0UL);
            ring.SetUp(start: 0);
            ring.Enable(true);
            ring.Add([], room);
            (_, uint written, byte[] bytes) = ring.Take();
            Assert.That(written, Is.EqualTo(room), $"process {life}");
            frontEnd.Leave();
            return bytes;
        }
    }

    // Whoever keeps the memory may write anything into it.
    [TestCase(10UL, "end")]
    [TestCase(13UL, null)]
    [TestCase(1UL << 62, null)]
    [TestCase(ulong.MaxValue, null)]
    public void MemoryKept_Position_IsWhereTheFileIsReadOn(ulong position, string? expected)
    {
        string path = Path.GetTempFileName();
        try
        {
            File.WriteAllText(path, "beginning end");
            using var source = new RngSource(path);
            using MemoryMapping mapping = MemoryMapping.Allocate(4096);
            var kept = new KeptMemory(mapping, 0, RngSource.KeptSize);
            MemoryMarshal.Write(kept.Bytes, in position);
            source.Keep(kept);
            byte[] bytes = new byte[100];
            int count = source.Read(bytes);
            Assert.That(System.Text.Encoding.ASCII.GetString(bytes, 0, count), Is.EqualTo(expected ?? ""));
            Assert.That(MemoryMarshal.Read<ulong>(kept.Bytes), Is.EqualTo(position + (ulong)count));
        }
        finally
        {
            File.Delete(path);
        }
    }

    [Test]
    public void New_SourceThatIsNotThere_NamesIt() => Assert.That(
        () => new RngBackend("/nonexistent/random", null),
        Throws.TypeOf<ErrnoException>().With.Message.EqualTo("cannot open /nonexistent/random: No such file or directory (errno 2)"));
}
