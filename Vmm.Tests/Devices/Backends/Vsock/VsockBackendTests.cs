using System.Buffers.Binary;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using NUnit.Framework;
using Vmm.Devices.Backends.Vsock;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Tests.Devices.Backends.Vsock;

/// <summary>The rings of a socket device; what they say is the business of <see cref="VsockSwitchTests"/>.</summary>
public sealed class VsockBackendTests
{
    private string _directory = "";
    private VsockBackend _device = null!;

    [SetUp]
    public void Open()
    {
        _directory = Directory.CreateTempSubdirectory("vmm-test-").FullName;
        _device = new VsockBackend(Path.Combine(_directory, "vsock"), 7);
    }

    [TearDown]
    public void Close()
    {
        _device.Dispose();
        Directory.Delete(_directory, recursive: true);
    }

    [Test]
    public void ReadConfig_Guest_ItsAddress()
    {
        byte[] config = new byte[_device.ConfigSize];
        _device.ReadConfig(config);
        Assert.That(BinaryPrimitives.ReadUInt64LittleEndian(config), Is.EqualTo(7));
        Assert.That((_device.RingCount, _device.Features), Is.EqualTo((3, 0UL)));
    }

    [Test]
    public void Transmit_HeaderCutUp_IsAnsweredOnTheOtherRing()
    {
        using var receive = new DeviceRing(_device, 0);
        using var transmit = new DeviceRing(_device, 1);
        transmit.AddData(Packet(VsockOperation.Request, 0), 1, 20, 3);
        Assert.That(transmit.Await(), Is.Empty);
        receive.AddRoom(10, 2, 50, 4096);
        VsockHeader reset = MemoryMarshal.Read<VsockHeader>(receive.Await());
        Assert.That((reset.Operation, reset.DestinationPort, reset.SourcePort), Is.EqualTo((VsockOperation.Reset, 5u, 6u)));
    }

    [TestCase(0)]
    [TestCase(43)]
    public void Transmit_HeaderCutOff_IsDropped(int length)
    {
        using var receive = new DeviceRing(_device, 0);
        using var transmit = new DeviceRing(_device, 1);
        if (length == 0)
            transmit.AddRoom(100);
        else
            transmit.AddData(Packet(VsockOperation.Request, 0).AsSpan(0, length));
        Assert.That(transmit.Await(), Is.Empty);
        receive.AddRoom(4096);
        receive.Process();
        Assert.That(receive.Take(), Is.Null);
    }

    [TestCase(1u)]
    [TestCase(uint.MaxValue)]
    [TestCase(uint.MaxValue - 43)]
    public void Transmit_LessDataThanItSays_IsDropped(uint length)
    {
        using var receive = new DeviceRing(_device, 0);
        using var transmit = new DeviceRing(_device, 1);
        transmit.AddData(Packet(VsockOperation.ReadWrite, length));
        Assert.That(transmit.Await(), Is.Empty);
        receive.AddRoom(4096);
        receive.Process();
        Assert.That(receive.Take(), Is.Null);
    }

    [Test]
    public void Receive_BufferTooSmall_ComesBackEmptyAndNothingIsLost()
    {
        using var receive = new DeviceRing(_device, 0);
        using var transmit = new DeviceRing(_device, 1);
        transmit.AddData(Packet(VsockOperation.Request, 0));
        transmit.Await();
        receive.AddRoom(43);
        receive.AddRoom(44);
        Assert.That(receive.Await(), Is.Empty);
        Assert.That(receive.Await(), Has.Length.EqualTo(44));
        Assert.That(receive.Ring.InFlight, Is.Zero);
    }

    [Test]
    public void Receive_WithoutBuffer_WaitsForAKickAndDoesNotSpin()
    {
        using var receive = new DeviceRing(_device, 0);
        using var transmit = new DeviceRing(_device, 1);
        transmit.AddData(Packet(VsockOperation.Request, 0));
        transmit.Await();
        receive.Process();
        receive.Process();
        Assert.That(Poll.Wait([new PollEntry(receive.Ready, PollEvents.Readable)], 50), Is.Zero);
        receive.AddRoom(100);
        Assert.That(receive.Await(), Has.Length.EqualTo(44));
    }

    [Test]
    public void Receive_WithoutBufferForWhatTheHostSends_DoesNotSpinAndGetsItLater()
    {
        using var receive = new DeviceRing(_device, 0);
        using var transmit = new DeviceRing(_device, 1);
        using var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(new UnixDomainSocketEndPoint($"{Path.Combine(_directory, "vsock")}_6"));
        listener.Listen(1);
        transmit.AddData(Packet(VsockOperation.Request, 0, room: 1000));
        transmit.Await();
        receive.Process();      // the answer finds no buffer
        using Socket program = listener.Accept();
        program.Send("hello"u8);
        Assert.That(Poll.Wait([new PollEntry(receive.Ready, PollEvents.Readable)], 20_000), Is.EqualTo(1));
        receive.Process();
        Assert.That(Poll.Wait([new PollEntry(receive.Ready, PollEvents.Readable)], 50), Is.Zero);
        receive.AddRoom(100);
        receive.AddRoom(100);
        Assert.That(receive.Await(), Has.Length.EqualTo(44));
        Assert.That(receive.Await()[44..], Is.EqualTo("hello"u8.ToArray()));
        program.Send("again"u8);
        receive.AddRoom(100);
        Assert.That(receive.Await()[44..], Is.EqualTo("again"u8.ToArray()));
    }

    [TestCase(true)]
    [TestCase(false)]
    public void Transmit_StoppedAndStarted_ConnectionsLastWhereTheDriverGoesOn(bool goesOn)
    {
        using FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(_device);
        frontEnd.Negotiate();
        frontEnd.ShareMemory();
        using FrontEndRing transmit = frontEnd.Ring(1);
        using Socket program = Connect(transmit);
        uint position = transmit.Stop();
        Assert.That(position, Is.EqualTo(1));
        if (goesOn)
        {
            transmit.SetUp(position);
            transmit.Add([.. Packet(VsockOperation.ReadWrite, 2), 1, 2]);
            transmit.Take();
            Assert.That(VsockGuest.Read(program, 2), Is.EqualTo(new byte[] { 1, 2 }));
            return;
        }
        frontEnd.Memory.Slice(new(FrontEndDriver.GuestBase + 0x10000 + DriverQueue.AreaSize), (int)DriverQueue.AreaSize).Clear();
        using FrontEndRing next = frontEnd.Ring(1);
        next.SetUp();
        Assert.That(program.Receive(new byte[1]), Is.Zero);
    }

    [Test]
    public void Transmit_SentJustBeforeTheFrontEndLeaves_ReachesTheHost()
    {
        using FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(_device);
        frontEnd.Negotiate();
        frontEnd.ShareMemory();
        using FrontEndRing transmit = frontEnd.Ring(1, size: 256);
        using Socket program = Connect(transmit);

        // The ring's thread has not got to them yet. They are more than what is left of its turn.
        byte[] sent = [.. Enumerable.Range(0, 256).Select(i => (byte)i)];
        foreach (byte one in sent)
        {
            byte[] packet = [.. Packet(VsockOperation.ReadWrite, 1), one];
            ulong address = FrontEndDriver.GuestBase + 0x200000 + one * 64U;
            packet.CopyTo(frontEnd.Memory.Slice(new(address), packet.Length));
            transmit.Queue.Add([(address, (uint)packet.Length, false)]);
        }
        frontEnd.Leave();

        Assert.That(VsockGuest.Read(program, sent.Length), Is.EqualTo(sent));
        Assert.That(program.Receive(new byte[1]), Is.Zero);
    }

    [Test]
    public void Reset_DataThatTheProgramHasNotReadYet_ReachesIt()
    {
        const int chunk = 1 << 15, chunks = 9;      // more than the program's socket takes
        using FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(_device);
        frontEnd.Negotiate(protocolFeatures: VhostUserProtocolFeatures.ResetDevice);
        frontEnd.ShareMemory();
        using FrontEndRing transmit = frontEnd.Ring(1);
        using Socket program = Connect(transmit);
        byte[] sent = new byte[chunk * chunks];
        new Random(1).NextBytes(sent);
        for (int i = 0; i < chunks; i++)
        {
            byte[] packet = [.. Packet(VsockOperation.ReadWrite, chunk), .. sent.AsSpan(i * chunk, chunk)];
            ulong address = FrontEndDriver.GuestBase + 0x200000 + ((ulong)i * 0x10000);
            packet.CopyTo(frontEnd.Memory.Slice(new(address), packet.Length));
            transmit.Queue.Add([(address, (uint)packet.Length, false)]);
        }

        frontEnd.Send(VhostUserRequest.ResetDevice, default, VhostUserFlags.NeedReply);
        Thread.Sleep(50);       // it is slow, but not as slow as it may be
        Assert.That(VsockGuest.Read(program, sent.Length).AsSpan().SequenceEqual(sent));
        Assert.That(program.Receive(new byte[1]), Is.Zero);
        Assert.That(frontEnd.Receive<ulong>(VhostUserRequest.ResetDevice), Is.Zero);
    }

    private static byte[] Packet(VsockOperation operation, uint length, uint room = 0)
    {
        var header = new VsockHeader
        {
            SourceCid = 7,
            DestinationCid = 2,
            SourcePort = 5,
            DestinationPort = 6,
            Length = length,
            Type = VsockType.Stream,
            Operation = operation,
            BufferAllocation = room,
        };
        return MemoryMarshal.AsBytes(new ReadOnlySpan<VsockHeader>(in header)).ToArray();
    }

    // The guest connects to a program of the host's, which is the result.
    private Socket Connect(FrontEndRing transmit)
    {
        using var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(new UnixDomainSocketEndPoint($"{Path.Combine(_directory, "vsock")}_6"));
        listener.Listen(1);
        transmit.SetUp();
        transmit.Enable(true);
        transmit.Add(Packet(VsockOperation.Request, 0));
        transmit.Take();
        Socket program = listener.Accept();
        program.ReceiveTimeout = 20_000;
        return program;
    }
}
