using System.Diagnostics;
using NUnit.Framework;
using Vmm.Devices.Backends.Rng;
using Vmm.Vhost.Native;

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

    [Test]
    public void New_SourceThatIsNotThere_NamesIt() => Assert.That(
        () => new RngBackend("/nonexistent/random", null),
        Throws.TypeOf<ErrnoException>().With.Message.EqualTo("cannot open /nonexistent/random: No such file or directory (errno 2)"));
}
