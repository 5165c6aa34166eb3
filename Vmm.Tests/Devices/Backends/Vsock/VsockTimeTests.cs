using System.Net.Sockets;
using NUnit.Framework;
using Vmm.Devices.Backends.Vsock;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Devices.Backends.Vsock;

/// <summary>A side that does not answer, and one that leaves before the other has answered.</summary>
public sealed class VsockTimeTests
{
    private const uint GuestPort = 1000, HostPort = 80;

    private static readonly TimeSpan s_short = TimeSpan.FromMilliseconds(50);

    [Test]
    public void Host_GuestDoesNotAnswerItsRequest_IsClosedAndTheGuestIsReset()
    {
        using var guest = new VsockGuest(s_short);
        Socket program = guest.Dial("CONNECT 5000\n");
        VsockHeader request = guest.Receive(VsockOperation.Request);
        VsockHeader reset = guest.Receive(VsockOperation.Reset);
        Assert.That((reset.SourcePort, reset.DestinationPort), Is.EqualTo((request.SourcePort, 5000u)));
        Assert.That(program.Receive(new byte[1]), Is.Zero);
        Assert.That(guest.Switch.Count, Is.Zero);
        guest.Send(VsockOperation.Response, 5000, request.SourcePort);
        guest.Receive(VsockOperation.Reset);    // too late
    }

    [Test]
    public void Host_GuestTakesNoPackets_IsClosed()
    {
        string directory = Directory.CreateTempSubdirectory("vmm-test-").FullName;
        try
        {
            using var device = new VsockBackend(Path.Combine(directory, "vsock"), VsockGuest.Cid);
            using var receive = new DeviceRing(device, 0);      // without a single buffer
            using var program = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { ReceiveTimeout = 10_000 };
            program.Connect(new UnixDomainSocketEndPoint(Path.Combine(directory, "vsock")));
            program.Send("CONNECT 5000\n"u8);
            Eventually.True(
                () =>
                {
                    Poll.Wait([new PollEntry(receive.Ready, PollEvents.Readable)], 1000);
                    receive.Process();
                    return program.Poll(0, SelectMode.SelectRead);
                },
                () => "it waits for ever");
            Assert.That(program.Receive(new byte[1]), Is.Zero);
        }
        finally
        {
            Directory.Delete(directory, recursive: true);
        }
    }

    [Test]
    public void Host_LeavesBeforeTheGuestAnswers_TheGuestIsReset()
    {
        using var guest = new VsockGuest();
        Socket program = guest.Dial("CONNECT 5000\n");
        VsockHeader request = guest.Receive(VsockOperation.Request);
        program.Dispose();
        VsockHeader reset = guest.Receive(VsockOperation.Reset);
        Assert.That(reset.SourcePort, Is.EqualTo(request.SourcePort));
        Assert.That(guest.Switch.Count, Is.Zero);
    }

    [Test]
    public void Host_EndsItsSendingSideBeforeTheGuestAnswers_IsAnswered()
    {
        using var guest = new VsockGuest();
        Socket program = guest.Dial("CONNECT 5000\nall");
        VsockHeader request = guest.Receive(VsockOperation.Request);
        program.Shutdown(SocketShutdown.Send);
        guest.ReceivesNothing();
        guest.Send(VsockOperation.Response, 5000, request.SourcePort);
        Assert.That(guest.Receive().Data, Is.EqualTo("all"u8.ToArray()));
        Assert.That(guest.Receive(VsockOperation.Shutdown).Flags, Is.EqualTo(VsockShutdown.Send));
    }

    [Test]
    public void Guest_DoesNotAnswerTheEnd_IsReset()
    {
        using var guest = new VsockGuest(s_short);
        guest.Connect().Dispose();
        Assert.That(guest.Receive(VsockOperation.Shutdown).Flags, Is.EqualTo(VsockShutdown.Both));
        guest.Receive(VsockOperation.Reset);
        Assert.That(guest.Switch.Count, Is.Zero);
    }

    [Test]
    public void Guest_OneDirectionHasEnded_TheOtherLastsAsLongAsItIsWanted()
    {
        using var guest = new VsockGuest(s_short);
        using Socket program = guest.Connect();
        program.Shutdown(SocketShutdown.Send);
        Assert.That(guest.Receive(VsockOperation.Shutdown).Flags, Is.EqualTo(VsockShutdown.Send));
        // Another connection, whose time begins now, is over: so is the first one's time.
        guest.Dial("CONNECT 5000\n");
        guest.Receive(VsockOperation.Request);
        guest.Receive(VsockOperation.Reset);
        guest.ReceivesNothing();
        guest.Send(VsockOperation.ReadWrite, GuestPort, HostPort, "still"u8);
        Assert.That(VsockGuest.Read(program, 5), Is.EqualTo("still"u8.ToArray()));
    }

    [Test]
    public void Guest_ListenersQueueIsFull_IsConnectedWhenThereIsRoom()
    {
        using var guest = new VsockGuest();
        Socket listener = guest.ListenOn(HostPort, backlog: 0);
        List<UnixSocket> others = Fill($"{guest.Path}_{HostPort}");
        guest.Send(VsockOperation.Request, GuestPort, HostPort);
        guest.Dial("CONNECT 5000\n");
        guest.Receive(VsockOperation.Request);  // what was asked for before that is under way
        guest.ReceivesNothing();
        foreach (UnixSocket other in others)
        {
            listener.Accept().Dispose();
            other.Dispose();
        }
        guest.Receive(VsockOperation.Response);
        using Socket program = listener.Accept();
        guest.Send(VsockOperation.ReadWrite, GuestPort, HostPort, "hello"u8);
        Assert.That(VsockGuest.Read(program, 5), Is.EqualTo("hello"u8.ToArray()));
    }

    [Test]
    public void Guest_WaitsForPortsThatAProgramWouldGetNext_BothAreConnected()
    {
        const uint next = 1u << 30;     // the first that the switch gives to a program
        using var guest = new VsockGuest();
        Socket listener = guest.ListenOn(next, backlog: 0);
        List<UnixSocket> others = Fill($"{guest.Path}_{next}");
        guest.Send(VsockOperation.Request, GuestPort, next);
        guest.Dial($"CONNECT {GuestPort}\n");
        Assert.That(guest.Receive(VsockOperation.Request).SourcePort, Is.EqualTo(next + 1));
        foreach (UnixSocket other in others)
        {
            listener.Accept().Dispose();
            other.Dispose();
        }
        Assert.That(guest.Receive(VsockOperation.Response).SourcePort, Is.EqualTo(next));
        Assert.That(guest.Switch.Count, Is.EqualTo(2));
    }

    [Test]
    public void Guest_ListenersQueueStaysFull_IsResetInTheEnd()
    {
        using var guest = new VsockGuest(s_short);
        guest.ListenOn(HostPort, backlog: 0);
        List<UnixSocket> others = Fill($"{guest.Path}_{HostPort}");
        guest.Send(VsockOperation.Request, GuestPort, HostPort);
        guest.Receive(VsockOperation.Reset);
        Assert.That(guest.Switch.Count, Is.Zero);
        others.ForEach(other => other.Dispose());
    }

    [Test]
    public void Guest_GivesUpWhileTheListenersQueueIsFull_IsNotConnected()
    {
        using var guest = new VsockGuest();
        Socket listener = guest.ListenOn(HostPort, backlog: 0);
        List<UnixSocket> others = Fill($"{guest.Path}_{HostPort}");
        guest.Send(VsockOperation.Request, GuestPort, HostPort);
        guest.Send(VsockOperation.Reset, GuestPort, HostPort);
        guest.Send(VsockOperation.Request, GuestPort + 1, HostPort);
        others.ForEach(other => listener.Accept().Dispose());
        // The one that came later is tried again at the same time, and nobody is connected before it.
        Assert.That(guest.Receive(VsockOperation.Response).DestinationPort, Is.EqualTo(GuestPort + 1));
        listener.Accept().Dispose();
        Assert.That(listener.Poll(0, SelectMode.SelectRead), Is.False);
        others.ForEach(other => other.Dispose());
    }

    [Test]
    public void Guest_WasPaused_HasItsTimeAgain()
    {
        using var guest = new VsockGuest(TimeSpan.FromSeconds(2));
        Socket program = guest.Dial("CONNECT 5000\n");
        VsockHeader request = guest.Receive(VsockOperation.Request);
        Assert.That(Poll.Wait([new PollEntry(guest.Switch.Ready, PollEvents.Readable)], 30_000), Is.EqualTo(1), "its time is over");
        guest.Switch.RestartDeadlines();
        guest.ReceivesNothing();
        guest.Send(VsockOperation.Response, 5000, request.SourcePort);
        Assert.That(VsockGuest.Read(program, 3), Is.EqualTo("OK "u8.ToArray()));
    }

    // Connections until the listener's queue has no room.
    private static List<UnixSocket> Fill(string path)
    {
        var sockets = new List<UnixSocket>();
        int error;
        while ((error = UnixSocket.TryConnect(path, out UnixSocket? socket)) == 0)
            sockets.Add(socket!);
        Assert.That(error, Is.EqualTo(Errnos.Eagain));
        return sockets;
    }
}
