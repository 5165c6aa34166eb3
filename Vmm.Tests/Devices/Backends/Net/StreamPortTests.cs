using System.Buffers.Binary;
using System.Net.Sockets;
using NUnit.Framework;
using Vmm.Devices.Backends.Net;
using Vmm.Devices.Net;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Devices.Backends.Net;

/// <summary>A network back-end on a stream, and its other side, well-behaved or not.</summary>
[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class StreamPortTests : IDisposable
{
    private const ulong Mergeable = VirtioFeatures.Version1 | NetFeatures.MrgRxbuf;
    private const int Header = 12, Largest = 65535 + 18;

    private readonly string _directory = Directory.CreateTempSubdirectory("vmm-test-").FullName;
    private readonly Socket _other;
    private readonly NetBackend _device;

    public StreamPortTests()
    {
        string path = Path.Combine(_directory, "wire");
        using var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(new UnixDomainSocketEndPoint(path));
        listener.Listen();
        _device = NetBackend.OnStream(path, mtu: null);
        _other = listener.Accept();
        _other.ReceiveTimeout = 10_000;
    }

    public void Dispose()
    {
        _device.Dispose();
        _other.Dispose();
        Directory.Delete(_directory, recursive: true);
    }

    [TestCase(14)]
    [TestCase(60)]
    [TestCase(1514)]
    [TestCase(Largest)]
    public void Send_Frame_GoesOutBehindItsLength(int length)
    {
        using var ring = new DeviceRing(_device, 1, Mergeable);
        ring.AddData([.. new byte[Header], .. Frame(length)], Header, 7);
        ring.Await();

        Assert.That(ReceiveOnWire(), Is.EqualTo(Frame(length)));
    }

    [TestCase(14)]
    [TestCase(1514)]
    [TestCase(Largest)]
    public void Receive_Frames_ArriveWholeHoweverTheyCome(int length)
    {
        using var ring = new DeviceRing(_device, 0, Mergeable);
        byte[] stream = [.. Enumerable.Range(0, 3).SelectMany(i => OnWire(Frame(length, i)))];
        // All at once, in two parts cut everywhere about the boundaries, and byte by byte.
        int whole = stream.Length / 3;
        int[] cuts = [0, 1, 3, 4, 5, whole - 1, whole, whole + 1, whole + 3, whole + 4, whole + 5, 2 * whole];
        foreach (int cut in cuts)
        {
            ring.AddRoom(Header + Largest);
            ring.AddRoom(Header + Largest);
            ring.AddRoom(Header + Largest);
            if (cut > 0)
            {
                SendOnWire(stream[..cut]);
                ring.Process();
            }
            using Task rest = Task.Run(() => SendOnWire(stream[cut..]));     // what does not fit waits
            for (int i = 0; i < 3; i++)
                Assert.That(ring.Await()[Header..], Is.EqualTo(Frame(length, i)), $"cut at {cut}, frame {i}");
            Assert.That(rest.Wait(10_000));
        }
    }

    [Test]
    public void Receive_ByteByByte_ArrivesWhole()
    {
        using var ring = new DeviceRing(_device, 0, Mergeable);
        ring.AddRoom(2000);
        foreach (byte value in OnWire(Frame(60)))
        {
            Assert.That(ring.Take(), Is.Null);
            SendOnWire([value]);
            ring.Process();
        }

        byte[] received = ring.Await();
        Assert.That(received[Header..], Is.EqualTo(Frame(60)));
        Assert.That(received[..Header], Is.EqualTo(new byte[] { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0 }), "no offloads, one buffer");
    }

    [TestCase(0u)]
    [TestCase(13u)]
    [TestCase((uint)Largest + 1)]
    [TestCase(0x80000000u)]
    [TestCase(0xFFFFFFFFu)]
    public void Receive_LengthThatNoFrameHas_IsTheEnd(uint length)
    {
        using var ring = new DeviceRing(_device, 0, Mergeable);
        ring.AddRoom(2000);
        byte[] prefix = new byte[4];
        BinaryPrimitives.WriteUInt32BigEndian(prefix, length);
        SendOnWire([.. OnWire(Frame(60)), .. prefix, .. new byte[100]]);

        Assert.That(ring.Await()[Header..], Is.EqualTo(Frame(60)));
        ring.AddRoom(2000);
        ring.ProcessUntil(() => _device.EndReason is not null);
        Assert.That(_device.EndReason, Does.StartWith("the stream /").And.EndsWith($"had a frame of {length} bytes"));
        Assert.That(ring.Ready, Is.Null);
    }

    [Test]
    public void Receive_OtherSideCloses_IsTheEnd()
    {
        using var ring = new DeviceRing(_device, 0, Mergeable);
        ring.AddRoom(2000);
        SendOnWire(OnWire(Frame(60))[..30]);
        _other.Dispose();

        ring.ProcessUntil(() => _device.EndReason is not null);
        Assert.That(_device.EndReason, Does.EndWith("was closed by the other side"));
    }

    // A guest sends as fast as it likes. What nobody takes is dropped, frame by frame.
    [Test]
    public void Send_NobodyTakesThem_FramesAreDroppedWhole()
    {
        const int count = 60;
        using var ring = new DeviceRing(_device, 1, Mergeable);
        for (int i = 0; i < count; i++)
        {
            ring.AddData([.. new byte[Header], .. Frame(30_000, i)]);
            Assert.That(ring.Await(), Is.Empty);
        }
        _other.ReceiveTimeout = 500;
        int received = 0, last = -1;
        while (TryReceiveOnWire() is byte[] frame)
        {
            int number = Enumerable.Range(last + 1, count).First(i => frame.AsSpan().SequenceEqual(Frame(30_000, i)));
            Assert.That(number, Is.GreaterThan(last));
            (last, received) = (number, received + 1);
        }

        Assert.That(received, Is.InRange(1, count - 1));
        _other.ReceiveTimeout = 10_000;
        ring.AddData([.. new byte[Header], .. Frame(100)]);
        ring.Await();
        Assert.That(ReceiveOnWire(), Is.EqualTo(Frame(100)), "it goes on");
        Assert.That(_device.EndReason, Is.Null);
    }

    // A send buffer so small that the kernel takes parts of a frame.
    [Test]
    public void TrySend_FrameInParts_GoesOutWholeIfSomebodyTakesIt()
    {
        (UnixSocket ours, Socket theirs) = SmallPair();
        using var port = new StreamPort(ours, "the wire");
        using (theirs)
        {
            Task<byte[]> reader = Task.Run(() => Receive(theirs, 4 + Largest));
            Assert.That(Send(port, Frame(Largest)), Is.EqualTo(4 + Largest));
            Assert.That(reader.Wait(10_000));
            Assert.That(reader.Result, Is.EqualTo(OnWire(Frame(Largest))));
            Assert.That(port.Fate, Is.Null);
        }
    }

    [Test]
    public void TrySend_FrameInPartsThatNobodyTakesForAWhile_GoesOutBeforeTheNext()
    {
        (UnixSocket ours, Socket theirs) = SmallPair();
        using var port = new StreamPort(ours, "the wire");
        using (theirs)
        {
            long start = Environment.TickCount64;
            Assert.That(Send(port, Frame(Largest)), Is.EqualTo(4 + Largest));
            Assert.That(Environment.TickCount64 - start, Is.LessThan(5000));
            Assert.That(Send(port, Frame(60)), Is.EqualTo(-Errnos.Eagain), "nothing may follow half a frame");
            Assert.That(port.Fate, Is.Null);

            Task<byte[]> reader = Task.Run(() => Receive(theirs, 4 + Largest + 4 + 60));
            Eventually.True(() => Send(port, Frame(60)) >= 0, () => "the rest does not go out");
            Assert.That(reader.Wait(10_000));
            Assert.That(reader.Result, Is.EqualTo([.. OnWire(Frame(Largest)), .. OnWire(Frame(60))]));
        }
    }

    [TestCase(13)]
    [TestCase(0)]
    public void TrySend_NoFrame_IsRefusedAndSendsNothing(int length)
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using var port = new StreamPort(ours, "the wire");
        using (theirs)
        {
            Assert.That(Send(port, new byte[length]), Is.EqualTo(-Errnos.Einval));
            Assert.That(theirs.TryRead(new byte[10]), Is.EqualTo(-Errnos.Eagain));
        }
    }

    [Test]
    public void Fate_OtherSideIsGoneAndNothingIsRead_SaysSo()
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using var port = new StreamPort(ours, "the wire");
        Assert.That(port.Fate, Is.Null);
        theirs.Dispose();

        Assert.That(port.Fate, Is.EqualTo("was closed by the other side"));
    }

    private (UnixSocket Ours, Socket Theirs) SmallPair()
    {
        string path = Path.Combine(_directory, "small");
        using var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(new UnixDomainSocketEndPoint(path));
        listener.Listen();
        UnixSocket ours = UnixSocket.Connect(path);
        using var view = new Socket(new SafeSocketHandle(ours.Number, ownsHandle: false));
        view.SendBufferSize = 1;
        return (ours, listener.Accept());
    }

    private static unsafe int Send(StreamPort port, byte[] frame)
    {
        byte[] header = new byte[Header];
        fixed (byte* first = header, rest = frame)
            return port.TrySend(0, [new IoVector((nint)first, Header), new IoVector((nint)rest, (nuint)(frame.Length / 3)), new IoVector((nint)rest + (frame.Length / 3), (nuint)(frame.Length - (frame.Length / 3)))]);
    }

    private static byte[] Frame(int length, int seed = 0)
    {
        byte[] frame = new byte[length];
        new Random(length + seed).NextBytes(frame);
        return frame;
    }

    private static byte[] OnWire(byte[] frame)
    {
        byte[] prefix = new byte[4];
        BinaryPrimitives.WriteInt32BigEndian(prefix, frame.Length);
        return [.. prefix, .. frame];
    }

    private void SendOnWire(byte[] bytes)
    {
        while (bytes.Length > 0)
            bytes = bytes[_other.Send(bytes)..];
    }

    private byte[] ReceiveOnWire() => TryReceiveOnWire() ?? throw new AssertionException("no frame on the wire");

    private byte[]? TryReceiveOnWire()
    {
        try
        {
            return Receive(_other, BinaryPrimitives.ReadInt32BigEndian(Receive(_other, 4)));
        }
        catch (SocketException)
        {
            return null;
        }
    }

    private static byte[] Receive(Socket socket, int length)
    {
        byte[] bytes = new byte[length];
        for (int done = 0; done < length;)
        {
            int count = socket.Receive(bytes, done, length - done, SocketFlags.None);
            Assert.That(count, Is.Positive);
            done += count;
        }
        return bytes;
    }
}
