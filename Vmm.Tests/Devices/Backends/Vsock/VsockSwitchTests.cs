using System.Net.Sockets;
using System.Text;
using NUnit.Framework;
using Vmm.Devices.Backends.Vsock;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Devices.Backends.Vsock;

public sealed class VsockSwitchTests
{
    private const uint GuestPort = 1000, HostPort = 80;

    private VsockGuest _guest = null!;

    [SetUp]
    public void Open() => _guest = new VsockGuest();

    [TearDown]
    public void Close() => _guest.Dispose();

    [Test]
    public void Guest_ConnectsToAListener_DataPassesBothWays()
    {
        using Socket program = _guest.Connect();
        _guest.Send(VsockOperation.ReadWrite, GuestPort, HostPort, "hello"u8);
        Assert.That(VsockGuest.Read(program, 5), Is.EqualTo("hello"u8.ToArray()));
        program.Send("world"u8);
        (VsockHeader header, byte[] data) = _guest.Receive();
        Assert.That(header.Operation, Is.EqualTo(VsockOperation.ReadWrite));
        Assert.That((header.SourcePort, header.DestinationPort, header.Length), Is.EqualTo((HostPort, GuestPort, 5u)));
        Assert.That((header.BufferAllocation, header.ForwardCount), Is.EqualTo(((uint)VsockCredit.Room, 5u)));
        Assert.That(data, Is.EqualTo("world"u8.ToArray()));
    }

    [Test]
    public void Guest_ConnectsAgainAndAgainAndTakesNothing_IsNotHeardUntilItDoes()
    {
        using Socket listener = _guest.ListenOn(HostPort);
        int count = 0;
        for (; _guest.Switch.HasRoom; count++)
        {
            Assert.That(count, Is.LessThanOrEqualTo(4 * VsockSwitch.MaxConnections));
            _guest.Send(VsockOperation.Request, GuestPort, HostPort);
            listener.Accept().Dispose();
        }
        Assert.That(_guest.Switch.Count, Is.EqualTo(1));
        _guest.Receive(VsockOperation.Response);
        Assert.That(_guest.Switch.HasRoom, Is.True);
    }

    [Test]
    public void Guest_TakesNothingAndAProgramConnects_IsToldThatThereIsRoom()
    {
        using Socket listener = _guest.ListenOn(HostPort);
        while (_guest.Switch.HasRoom)
        {
            _guest.Send(VsockOperation.Request, GuestPort, HostPort);
            listener.Accept().Dispose();
        }
        _guest.Switch.RoomReady.Drain();
        _guest.Dial("CONNECT 5000\n");      // it takes the place of connections that have ended
        Eventually.True(
            () =>
            {
                _guest.Switch.AttendToHost();
                return _guest.Switch.HasRoom;
            },
            () => "there is no room");
        Assert.That(_guest.Switch.RoomReady.Drain(), Is.Not.Zero);
    }

    [Test]
    public void Guest_ResetsAndConnectsAgain_GetsNothingOfTheOldConnection()
    {
        Socket old = _guest.Connect();
        old.Send(new byte[VsockPacket.MaxData + 3]);
        Assert.That(_guest.Receive().Data, Has.Length.EqualTo(VsockPacket.MaxData), "there is more for the guest");
        for (uint sent = 0, taken = 0; taken == sent; taken = _guest.Receive(VsockOperation.CreditUpdate).ForwardCount)
        {
            _guest.Send(VsockOperation.ReadWrite, GuestPort, HostPort, new byte[1 << 15]);
            _guest.Send(VsockOperation.CreditRequest, GuestPort, HostPort);
            sent += 1 << 15;
        }
        _guest.Send(VsockOperation.Reset, GuestPort, HostPort);
        Assert.That(_guest.Switch.Count, Is.EqualTo(1), "there is more for the program");
        Socket program = _guest.Connect();
        program.Send("new"u8);
        Assert.That(_guest.Receive().Data, Is.EqualTo("new"u8.ToArray()));
        _guest.Send(VsockOperation.ReadWrite, GuestPort, HostPort, "heard"u8);
        Assert.That(VsockGuest.Read(program, 5), Is.EqualTo("heard"u8.ToArray()));
    }

    [Test]
    public void Guest_ConnectsWhereNobodyListens_IsReset()
    {
        _guest.Send(VsockOperation.Request, GuestPort, 4711);
        VsockHeader reset = _guest.Receive(VsockOperation.Reset);
        Assert.That((reset.SourcePort, reset.DestinationPort), Is.EqualTo((4711u, GuestPort)));
        Assert.That(_guest.Switch.Count, Is.Zero);
    }

    [Test]
    public void Host_Connects_IsAnsweredWhenTheGuestAgrees()
    {
        Socket program = _guest.Dial("CONNECT 5000\nearly");
        VsockHeader request = _guest.Receive(VsockOperation.Request);
        Assert.That(request.DestinationPort, Is.EqualTo(5000));
        Assert.That(program.Available, Is.Zero);
        _guest.Send(VsockOperation.Response, 5000, request.SourcePort);
        string answer = $"OK {request.SourcePort}\n";
        Assert.That(Encoding.ASCII.GetString(VsockGuest.Read(program, answer.Length)), Is.EqualTo(answer));
        Assert.That(_guest.Receive().Data, Is.EqualTo("early"u8.ToArray()), "what came behind the line is the stream's");
    }

    [TestCase("CONNECT\n")]
    [TestCase("CONNECT x\n")]
    [TestCase("CONNECT 0\n")]
    [TestCase("CONNECT -1\n")]
    [TestCase("CONNECT 4294967295\n")]
    [TestCase("CONNECT 99999999999\n")]
    [TestCase("CONNECT 5 6\n")]
    [TestCase("ACCEPT 5000\n", Description = "the switch connects itself")]
    [TestCase("GET / HTTP/1.1\n")]
    [TestCase("012345678901234567890123456789012345")]
    public void Host_SaysSomethingElse_IsThrownOut(string line)
    {
        Socket program = _guest.Dial(line);
        Eventually.True(
            () =>
            {
                _guest.ReceivesNothing();
                return program.Poll(0, SelectMode.SelectRead) && program.Available == 0;
            },
            () => "it is still there");
        Assert.That(_guest.Switch.Count, Is.Zero);
    }

    [Test]
    public void Host_GuestRefuses_IsClosed()
    {
        Socket program = _guest.Dial("CONNECT 5000\n");
        VsockHeader request = _guest.Receive(VsockOperation.Request);
        _guest.Send(VsockOperation.Reset, 5000, request.SourcePort);
        Assert.That(program.Receive(new byte[1]), Is.Zero);
        Assert.That(_guest.Switch.Count, Is.Zero);
        _guest.ReceivesNothing();
    }

    [Test]
    public void Host_ClosesItsSendingSide_TheOtherDirectionStays()
    {
        using Socket program = _guest.Connect();
        program.Send("last"u8);
        program.Shutdown(SocketShutdown.Send);
        Assert.That(_guest.Receive().Data, Is.EqualTo("last"u8.ToArray()));
        Assert.That(_guest.Receive(VsockOperation.Shutdown).Flags, Is.EqualTo(VsockShutdown.Send));
        _guest.Send(VsockOperation.ReadWrite, GuestPort, HostPort, "still"u8);
        Assert.That(VsockGuest.Read(program, 5), Is.EqualTo("still"u8.ToArray()));
        _guest.Send(VsockOperation.Shutdown, GuestPort, HostPort, flags: VsockShutdown.Both);
        _guest.Receive(VsockOperation.Reset);
        Assert.That(program.Receive(new byte[1]), Is.Zero);
        Assert.That(_guest.Switch.Count, Is.Zero);
    }

    [Test]
    public void Guest_ClosesItsSendingSide_TheOtherDirectionStays()
    {
        using Socket program = _guest.Connect();
        _guest.Send(VsockOperation.ReadWrite, GuestPort, HostPort, "last"u8);
        _guest.Send(VsockOperation.Shutdown, GuestPort, HostPort, flags: VsockShutdown.Send);
        Assert.That(VsockGuest.Read(program, 4), Is.EqualTo("last"u8.ToArray()));
        Assert.That(program.Receive(new byte[1]), Is.Zero);
        program.Send("still"u8);
        Assert.That(_guest.Receive().Data, Is.EqualTo("still"u8.ToArray()));
        program.Dispose();
        Assert.That(_guest.Receive(VsockOperation.Shutdown).Flags, Is.EqualTo(VsockShutdown.Both));
        _guest.Send(VsockOperation.Reset, GuestPort, HostPort);
        Assert.That(_guest.Switch.Count, Is.Zero);
    }

    [Test]
    public void Guest_CreditIsUsedUp_NothingMoreComesUntilThereIsMore()
    {
        _guest.Room = 100;
        using Socket program = _guest.Connect();
        program.Send(new byte[250]);
        Assert.That(_guest.Receive().Data, Has.Length.EqualTo(100));
        _guest.Receive(VsockOperation.CreditRequest);
        _guest.ReceivesNothing();
        Assert.That(Poll.Wait([new PollEntry(_guest.Switch.Ready, PollEvents.Readable)], 50), Is.Zero, "it must not spin meanwhile");
        _guest.Forwarded = 60;
        _guest.Send(VsockOperation.CreditUpdate, GuestPort, HostPort);
        Assert.That(_guest.Receive().Data, Has.Length.EqualTo(60));
        _guest.Receive(VsockOperation.CreditRequest);
        _guest.Forwarded = 160;
        _guest.Send(VsockOperation.CreditUpdate, GuestPort, HostPort);
        Assert.That(_guest.Receive().Data, Has.Length.EqualTo(90));
    }

    [Test]
    public void Guest_ClaimsMoreForwardedThanWasSent_GetsNothing()
    {
        using Socket program = _guest.Connect();
        _guest.Forwarded = 1;       // of nothing
        _guest.Send(VsockOperation.CreditUpdate, GuestPort, HostPort);
        program.Send("data"u8);
        Thread.Sleep(20);
        _guest.ReceivesNothing();
        _guest.Forwarded = 0;
        _guest.Send(VsockOperation.CreditUpdate, GuestPort, HostPort);
        Assert.That(_guest.Receive().Data, Is.EqualTo("data"u8.ToArray()));
    }

    [Test]
    public void Guest_SendsMoreThanItsCredit_IsResetAndTheHostGetsWhatWasAllowed()
    {
        using Socket program = _guest.Connect();
        byte[] chunk = new byte[64 * 1024];
        int allowed = 0;
        VsockOperation? answer = null;
        // The program does not read: its socket and our room fill up.
        for (int i = 0; i < 100 && answer != VsockOperation.Reset; i++)
        {
            _guest.Send(VsockOperation.ReadWrite, GuestPort, HostPort, chunk);
            allowed += chunk.Length;
            answer = _guest.TryReceive()?.Header.Operation;
        }
        Assert.That(answer, Is.EqualTo(VsockOperation.Reset));
        int read = 0, count;
        byte[] buffer = new byte[1 << 16];
        while ((count = program.Available > 0 || read == 0 ? program.Receive(buffer) : ReadRest(program, buffer)) > 0)
        {
            read += count;
            _guest.TryReceive();
        }
        Assert.That(read, Is.EqualTo(allowed - chunk.Length));
        Assert.That(_guest.Switch.Count, Is.Zero);
    }

    // The rest is written as the switch finds out that there is room.
    private int ReadRest(Socket program, byte[] buffer)
    {
        Eventually.True(
            () =>
            {
                _guest.TryReceive();
                return program.Poll(0, SelectMode.SelectRead);
            },
            () => "neither data nor the end");
        return program.Receive(buffer);
    }

    [Test]
    public void Guest_RoomGivenBack_IsToldBeforeItIsNeeded()
    {
        using Socket program = _guest.Connect();
        byte[] chunk = new byte[VsockCredit.Room / 2];
        for (uint i = 1; i <= 8; i++)
        {
            _guest.Send(VsockOperation.ReadWrite, GuestPort, HostPort, chunk);
            VsockGuest.Read(program, chunk.Length);
            Assert.That(_guest.Receive(VsockOperation.CreditUpdate).ForwardCount, Is.EqualTo(i * chunk.Length));
        }
        _guest.Send(VsockOperation.CreditRequest, GuestPort, HostPort);
        _guest.Receive(VsockOperation.CreditUpdate);
    }

    [TestCase(0)]
    [TestCase(8)]
    [TestCase(0xFFFF)]
    [TestCase(2)]   // Response
    public void Guest_SaysWhatMakesNoSense_IsReset(int operation)
    {
        using Socket program = _guest.Connect();
        _guest.Send((VsockOperation)operation, GuestPort, HostPort);
        _guest.Receive(VsockOperation.Reset);
        Assert.That(program.Receive(new byte[1]), Is.Zero);
        Assert.That(_guest.Switch.Count, Is.Zero);
    }

    [TestCase(2)]   // Response
    [TestCase(5)]   // ReadWrite
    [TestCase(4)]   // Shutdown
    [TestCase(7)]   // CreditRequest
    [TestCase(99)]
    public void Guest_PacketOfNoConnection_IsAnsweredByReset(int operation)
    {
        _guest.Send((VsockOperation)operation, GuestPort, HostPort);
        _guest.Receive(VsockOperation.Reset);
        _guest.Send(VsockOperation.Reset, GuestPort, HostPort);
        _guest.ReceivesNothing();       // or two would never end
    }

    [TestCase(8UL, 2UL)]
    [TestCase(2UL, 2UL)]
    [TestCase(7UL, 3UL)]
    [TestCase(7UL | 1UL << 32, 2UL)]
    public void Guest_WrongAddress_IsDropped(ulong source, ulong destination)
    {
        using Socket listener = _guest.ListenOn(HostPort);
        _guest.Switch.Receive(
            new VsockHeader
            {
                SourceCid = source,
                DestinationCid = destination,
                SourcePort = GuestPort,
                DestinationPort = HostPort,
                Type = VsockType.Stream,
                Operation = VsockOperation.Request,
            }, []);
        _guest.ReceivesNothing();
        Assert.That(_guest.Switch.Count, Is.Zero);
    }

    [Test]
    public void Guest_OtherKindOfSocket_IsReset()
    {
        _guest.Switch.Receive(
            new VsockHeader { SourceCid = VsockGuest.Cid, DestinationCid = 2, Type = (VsockType)2, Operation = VsockOperation.Request }, []);
        VsockHeader reset = _guest.Receive(VsockOperation.Reset);
        Assert.That(reset.Type, Is.EqualTo((VsockType)2));
    }

    [Test]
    public void Guest_TakesNoAnswers_IsNotHeardUntilItDoes()
    {
        int sent = 0;
        while (_guest.Switch.HasRoom)
        {
            _guest.Send(VsockOperation.ReadWrite, GuestPort, HostPort);
            Assert.That(++sent, Is.LessThan(10_000));
        }
        _guest.Switch.RoomReady.Drain();
        _guest.Receive(VsockOperation.Reset);
        Assert.That(_guest.Switch.HasRoom);
        Assert.That(_guest.Switch.RoomReady.Drain(), Is.Not.Zero);
    }

    [Test]
    public void Guest_RequestsTheSameAgain_GetsANewConnection()
    {
        using Socket first = _guest.Connect();
        using Socket second = _guest.Connect();
        Assert.That(first.Receive(new byte[1]), Is.Zero);
        Assert.That(_guest.Switch.Count, Is.EqualTo(1));
        second.Send("x"u8);
        Assert.That(_guest.Receive().Data, Is.EqualTo("x"u8.ToArray()));
    }

    [Test]
    public void Guest_TwoHundredConnectionsInARow_LeaveNothing()
    {
        int before = OpenDescriptors.Count;
        for (uint i = 0; i < 200; i++)
        {
            Socket program = _guest.Connect(guestPort: 5000 + i);
            _guest.Send(VsockOperation.ReadWrite, 5000 + i, HostPort, "ping"u8);
            Assert.That(VsockGuest.Read(program, 4), Is.EqualTo("ping"u8.ToArray()));
            program.Dispose();
            _guest.Receive(VsockOperation.Shutdown);
            _guest.Send(VsockOperation.Reset, 5000 + i, HostPort);
        }
        Assert.That(_guest.Switch.Count, Is.Zero);
        OpenDescriptors.AssertBackTo(before);
    }

    [Test]
    public void Connections_TooMany_AreRefused()
    {
        using Socket listener = _guest.ListenOn(HostPort);
        var programs = new List<Socket>();
        try
        {
            for (uint i = 0; i < VsockSwitch.MaxConnections; i++)
            {
                _guest.Send(VsockOperation.Request, i, HostPort);
                programs.Add(listener.Accept());
                _guest.Receive(VsockOperation.Response);
            }
            _guest.Send(VsockOperation.Request, uint.MaxValue, HostPort);
            _guest.Receive(VsockOperation.Reset);
            Socket late = _guest.Dial("CONNECT 1\n");
            Eventually.True(
                () =>
                {
                    _guest.TryReceive();
                    return late.Poll(0, SelectMode.SelectRead);
                },
                () => "it is still there");
            Assert.That(late.Receive(new byte[1]), Is.Zero);
        }
        finally
        {
            programs.ForEach(program => program.Dispose());
        }
    }

    [TestCase(true)]
    [TestCase(false)]
    public void Connections_TooManyAndOneThatTheGuestHasClosedIsNotRead_MakesRoom(bool isOfHost)
    {
        using Socket stuck = _guest.Connect();
        Fill();
        _guest.Send(VsockOperation.Reset, GuestPort, HostPort);
        using Socket listener = _guest.ListenOn(HostPort);
        var programs = new List<Socket>();
        try
        {
            for (uint i = 1; i < VsockSwitch.MaxConnections; i++)
            {
                _guest.Send(VsockOperation.Request, 5000 + i, HostPort);
                programs.Add(listener.Accept());
                _guest.Receive(VsockOperation.Response);
            }
            Assert.That(_guest.Switch.Count, Is.EqualTo(VsockSwitch.MaxConnections));
            if (isOfHost)
                _guest.Dial("CONNECT 1\n");
            else
                _guest.Send(VsockOperation.Request, 1, HostPort);
            _guest.Receive(isOfHost ? VsockOperation.Request : VsockOperation.Response);
            Assert.That(_guest.Switch.Count, Is.EqualTo(VsockSwitch.MaxConnections));
            Assert.That(programs.Exists(program => program.Poll(0, SelectMode.SelectRead)), Is.False, "the guest has closed none of these");
        }
        finally
        {
            programs.ForEach(program => program.Dispose());
        }
    }

    [Test]
    public void Transfer_LargeBothWays_ArrivesUnchanged()
    {
        const int size = 16 << 20;
        using Socket program = _guest.Connect();
        byte[] up = new byte[size], down = new byte[size];
        new Random(1).NextBytes(up);
        new Random(2).NextBytes(down);
        Task<byte[]> taken = Task.Run(() => VsockGuest.Read(program, size));
        Task given = Task.Run(() =>
        {
            for (int done = 0; done < size;)
                done += program.Send(down.AsSpan(done));
        });
        var received = new MemoryStream();
        int sent = 0;
        uint credit = VsockCredit.Room;
        Eventually.True(
            () =>
            {
                int count = Math.Min(Math.Min(size - sent, 65536), (int)(credit - (uint)sent));
                if (count > 0)
                    _guest.Send(VsockOperation.ReadWrite, GuestPort, HostPort, up.AsSpan(sent, count));
                sent += Math.Max(0, count);
                while (_guest.TryReceive() is { } packet)
                {
                    Assert.That(packet.Header.Operation, Is.Not.EqualTo(VsockOperation.Reset));
                    credit = packet.Header.ForwardCount + packet.Header.BufferAllocation;
                    received.Write(packet.Data);
                    _guest.Forwarded += (uint)packet.Data.Length;
                    if (packet.Data.Length > 0)
                        _guest.Send(VsockOperation.CreditUpdate, GuestPort, HostPort);
                }
                return sent == size && received.Length == size && taken.IsCompleted;
            },
            () => $"{sent} sent, {received.Length} received");
        Assert.That(given.Wait(10_000));
        Assert.That(taken.Result.AsSpan().SequenceEqual(up));
        Assert.That(received.ToArray().AsSpan().SequenceEqual(down));
    }

    [Test]
    public void Flush_ProgramThatIsSlow_GetsAllThatTheGuestHasSent()
    {
        using Socket program = _guest.Connect();
        int sent = Fill();
        Task<byte[]> taken = Task.Run(() => VsockGuest.Read(program, sent));
        _guest.Switch.Flush(20_000);
        _guest.Switch.Clear();
        Assert.That(taken.Result, Has.Length.EqualTo(sent));
        Assert.That(program.Receive(new byte[1]), Is.Zero);
    }

    [Test]
    public void Flush_ProgramThatReadsNothing_EndsInTime()
    {
        using Socket program = _guest.Connect();
        Fill();
        _guest.Switch.Flush(1);
        Assert.That(_guest.Switch.Count, Is.EqualTo(1));
    }

    // The program's socket, and some of the room behind it.
    private int Fill()
    {
        int sent = 0;
        for (uint taken = 0; taken == sent; taken = _guest.Receive(VsockOperation.CreditUpdate).ForwardCount)
        {
            _guest.Send(VsockOperation.ReadWrite, GuestPort, HostPort, new byte[1 << 15]);
            _guest.Send(VsockOperation.CreditRequest, GuestPort, HostPort);
            sent += 1 << 15;
        }
        return sent;
    }

    [Test]
    public void Clear_WithConnections_EndsThemAndListensOn()
    {
        using Socket program = _guest.Connect();
        _guest.Switch.Clear();
        Assert.That(program.Receive(new byte[1]), Is.Zero);
        _guest.Dial("CONNECT 9\n");
        _guest.Receive(VsockOperation.Request);
    }
}
