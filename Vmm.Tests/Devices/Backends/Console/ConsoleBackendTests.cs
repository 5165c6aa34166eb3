using System.Buffers.Binary;
using System.Runtime.InteropServices;
using NUnit.Framework;
using Vmm.Devices.Backends.Console;
using Vmm.Tests.Fakes;
using Vmm.Tests.Integration.Linux.Devices;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Devices.Backends.Console;

public class ConsoleBackendTests
{
    private const int Receive = 0, Transmit = 1;

    [Test]
    public void Terminal_BothDirections_PassUnchanged()
    {
        using ConsoleBackend device = ConsoleBackend.OnTerminal();
        using FileDescriptor user = FileDescriptor.Open(device.Path, OpenMode.ReadWriteNonBlocking);
        using var input = new DeviceRing(device, Receive);
        using var output = new DeviceRing(device, Transmit);

        output.AddData("hello\n\x03\0"u8, 3);
        Assert.That(output.Await(), Is.Empty);
        Assert.That(ReadAll(user, 8), Is.EqualTo("hello\n\x03\0"u8.ToArray()));

        input.AddRoom(2, 2);
        input.AddRoom(100);
        user.WriteAll("ls -l\r\x03"u8, "the terminal");
        Assert.That(input.Await(), Is.EqualTo("ls -"u8.ToArray()));
        Assert.That(input.Await(), Is.EqualTo("l\r\x03"u8.ToArray()));
    }

    [Test]
    public void Terminal_InputWithoutBuffer_Waits()
    {
        using ConsoleBackend device = ConsoleBackend.OnTerminal();
        using FileDescriptor user = FileDescriptor.Open(device.Path, OpenMode.ReadWriteNonBlocking);
        using var input = new DeviceRing(device, Receive);
        user.WriteAll("x"u8, "the terminal");
        input.ProcessUntil(() => input.Ready is null);   // no buffer: nothing to wake up for but a kick
        input.AddRoom(10);
        Assert.That(input.Await(), Is.EqualTo("x"u8.ToArray()));
    }

    [Test]
    public void Terminal_RingStoppedAndStarted_KeepsTheInput()
    {
        using ConsoleBackend device = ConsoleBackend.OnTerminal();
        using FileDescriptor user = FileDescriptor.Open(device.Path, OpenMode.ReadWriteNonBlocking);
        using (var stopped = new DeviceRing(device, Receive))
        {
            user.WriteAll("x"u8, "the terminal");
            stopped.ProcessUntil(() => stopped.Ready is null);   // it has been read
        }
        using var input = new DeviceRing(device, Receive);
        input.AddRoom(10);
        Assert.That(input.Await(), Is.EqualTo("x"u8.ToArray()));
    }

    [Test]
    public void Terminal_Resized_ShowsInTheConfiguration()
    {
        using ConsoleBackend device = ConsoleBackend.OnTerminal();
        using FileDescriptor user = FileDescriptor.Open(device.Path, OpenMode.ReadWriteNonBlocking);
        using var input = new DeviceRing(device, Receive);
        Assert.That(device.Features, Is.EqualTo(1), "VIRTIO_CONSOLE_F_SIZE");
        ulong size = 50 | 132 << 16;                        // rows, columns
        Ioctl.Call(user, new IoctlRequest(0x5414, "TIOCSWINSZ"), ref size);
        input.AddRoom(10);
        user.WriteAll("x"u8, "the terminal");
        input.Await();
        byte[] config = new byte[device.ConfigSize];
        device.ReadConfig(config);
        Assert.That(BinaryPrimitives.ReadUInt16LittleEndian(config), Is.EqualTo(132));
        Assert.That(BinaryPrimitives.ReadUInt16LittleEndian(config.AsSpan(2)), Is.EqualTo(50));
    }

    [Test]
    public void Terminal_NobodyReads_TheGuestGoesOnAndTheLatestIsKept()
    {
        using ConsoleBackend device = ConsoleBackend.OnTerminal(65536);
        using var output = new DeviceRing(device, Transmit);
        byte[] line = new byte[1024];
        for (int i = 0; i < 400; i++)
        {
            line.AsSpan().Fill((byte)i);
            output.AddData(line);
            Assert.That(output.Await(), Is.Empty);
        }
        Assert.That(output.Ready, Is.Not.Null);
        Assert.That(Poll.Wait([new PollEntry(output.Ready, PollEvents.Readable)], 0), Is.Zero, "it must not spin meanwhile");

        using FileDescriptor user = FileDescriptor.Open(device.Path, OpenMode.ReadWriteNonBlocking);
        var read = new List<byte>();
        byte[] buffer = new byte[4096];
        Eventually.True(
            () =>
            {
                int count = user.TryRead(buffer);
                read.AddRange(buffer.AsSpan(0, Math.Max(0, count)));
                output.Process();
                return count < 0 && read.Count > 65536 && output.Ready is null;
            },
            () => $"{read.Count} bytes came");
        byte[] expected = [.. Enumerable.Range(400 - 64, 64).SelectMany(i => Enumerable.Repeat((byte)i, 1024))];
        Assert.That(read[^65536..], Is.EqualTo(expected));
    }

    [Test]
    public void Terminal_DriverIsGoneBeforeAnybodyReads_ItsLastWordsAreKept()
    {
        using ConsoleBackend device = ConsoleBackend.OnTerminal();
        using (var output = new DeviceRing(device, Transmit))
        {
            // The first fills the terminal.
            for (int i = 0; output.Ready is null; i++)
            {
                Assert.That(i, Is.LessThan(1000));
                output.AddData(new byte[1024]);
                output.Await();
            }
            output.AddData("panic"u8);
            output.Await();
        }
        using FileDescriptor user = FileDescriptor.Open(device.Path, OpenMode.ReadWriteNonBlocking);
        using var next = new DeviceRing(device, Transmit);
        next.AddData("!"u8);
        byte[] buffer = new byte[4096];
        var read = new List<byte>();
        Eventually.True(
            () =>
            {
                next.Process();
                read.AddRange(buffer.AsSpan(0, Math.Max(0, user.TryRead(buffer))));
                return read.Count > 0 && read[^1] == '!';
            },
            () => $"{read.Count} bytes came");
        Assert.That(read.TakeLast(6), Is.EqualTo("panic!"u8.ToArray()));
    }

    [Test]
    public void File_Output_IsWrittenAndThereIsNoInput()
    {
        string path = Path.GetTempFileName();
        try
        {
            using (ConsoleBackend device = ConsoleBackend.IntoFile(path))
            {
                Assert.That(device.Features, Is.Zero);
                using var input = new DeviceRing(device, Receive);
                using var output = new DeviceRing(device, Transmit);
                input.AddRoom(10);
                input.Process();
                Assert.That(input.Take(), Is.Null);
                byte[] data = [.. Enumerable.Range(0, 20000).Select(i => (byte)i)];
                output.AddData(data, 1, 5000);
                output.Await();
                Assert.That(File.ReadAllBytes(path), Is.EqualTo(data));
            }
        }
        finally
        {
            File.Delete(path);
        }
    }

    // A FIFO takes 64 KiB, and nobody reads: the guest goes on, and so does whoever stops the ring.
    [Test]
    public void Fifo_NobodyReads_TheRingStopsAndTheLatestIsKept()
    {
        const int requests = 80, length = 2048;
        string path = Path.Combine(Path.GetTempPath(), Path.GetRandomFileName());
        HostCommand.Run("mkfifo", path);
        FileDescriptor reader = FileDescriptor.Open(path, OpenMode.ReadNonBlocking);
        try
        {
            using ConsoleBackend device = ConsoleBackend.IntoFile(path);
            using FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(device);
            frontEnd.Negotiate();
            frontEnd.ShareMemory();
            using FrontEndRing ring = frontEnd.Ring(Transmit);
            ring.SetUp();
            ring.Enable(true);
            byte[] data = new byte[length];
            try
            {
                for (int i = 0; i < requests; i++)
                {
                    data.AsSpan().Fill((byte)i);
                    ring.Add(data);
                    ring.Take();
                }
                Assert.That(ring.Stop(), Is.EqualTo(requests));
            }
            catch
            {
                reader.Dispose();   // a thread that is stuck in a write gets EPIPE
                throw;
            }
            ring.SetUp(requests);
            ring.Enable(true);
            byte[] expected = [.. Enumerable.Range(requests - 32, 32).SelectMany(i => Enumerable.Repeat((byte)i, length))];
            Assert.That(ReadAll(reader, 2 * expected.Length)[^expected.Length..], Is.EqualTo(expected));
        }
        finally
        {
            reader.Dispose();
            File.Delete(path);
        }
    }

    // The reader takes one page in 50 ms: all that is queued takes it 12 seconds.
    [Test]
    public void Fifo_SlowReader_TheRingStopsInBetween()
    {
        const int requests = 64, length = 16384, page = 4096;
        string path = Path.Combine(Path.GetTempPath(), Path.GetRandomFileName());
        HostCommand.Run("mkfifo", path);
        using FileDescriptor reader = FileDescriptor.Open(path, OpenMode.ReadNonBlocking);
        try
        {
            using ConsoleBackend device = ConsoleBackend.IntoFile(path);
            using FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(device);
            frontEnd.Negotiate();
            frontEnd.ShareMemory();
            using FrontEndRing ring = frontEnd.Ring(Transmit, requests);
            ring.SetUp();
            byte[] sent = new byte[requests * length];
            new Random(1).NextBytes(sent);
            const ulong start = FrontEndDriver.GuestBase + 0x200000;
            sent.CopyTo(frontEnd.Memory.Slice(new(start), sent.Length));
            for (int i = 0; i < requests; i++)
                ring.Queue.Add([(start + (ulong)(i * length), length, false)]);
            ring.Enable(true);
            var received = new List<byte>();
            bool isStopped = false;
            var thread = new Thread(() =>
            {
                byte[] buffer = new byte[page];
                bool isLast = false;
                for (long end = Environment.TickCount64 + 30_000; !isLast && Environment.TickCount64 < end; Thread.Sleep(Volatile.Read(ref isStopped) ? 1 : 50))
                {
                    lock (received)
                    {
                        received.AddRange(buffer.AsSpan(0, Math.Max(0, reader.TryRead(buffer))));
                        isLast = received.Count >= page && CollectionsMarshal.AsSpan(received)[^page..].SequenceEqual(sent.AsSpan()[^page..]);
                    }
                }
            });
            thread.Start();
            try
            {
                Eventually.True(() => ring.Queue.TryGetUsed(out _, out _), () => "nothing is written");
                uint position = ring.Stop();
                lock (received)
                    Assert.That(received, Has.Count.LessThan(sent.Length / 2), "it was waited for all the time");
                ring.SetUp(position);
            }
            finally
            {
                Volatile.Write(ref isStopped, true);
                thread.Join();
            }
            Assert.That(received.TakeLast(page), Is.EqualTo(sent.TakeLast(page)), "the rest is not lost");
        }
        finally
        {
            File.Delete(path);
        }
    }

    private static byte[] ReadAll(FileDescriptor fd, int length)
    {
        var read = new List<byte>();
        byte[] buffer = new byte[65536];
        Eventually.True(
            () =>
            {
                read.AddRange(buffer.AsSpan(0, Math.Max(0, fd.TryRead(buffer))));
                return read.Count >= length;
            },
            () => $"only {read.Count} bytes came");
        return [.. read];
    }
}
