using System.Net.Sockets;
using System.Text;
using NUnit.Framework;
using Vmm.Devices.Backends.Vsock;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Devices.Backends.Vsock;

/// <summary>A switch that connects to nobody: programs of the host's accept the guest's connections.</summary>
public sealed class VsockAcceptTests
{
    private const uint GuestPort = 1000, HostPort = 1024;

    private static readonly TimeSpan s_short = TimeSpan.FromMilliseconds(50);

    private VsockGuest _guest = null!;

    [SetUp]
    public void Open() => _guest = new VsockGuest(connects: false);

    [TearDown]
    public void Close() => _guest.Dispose();

    // Nothing has looked at the program before the guest connects.
    [Test]
    public void Guest_ConnectsWhereAProgramAccepts_DataPassesBothWays()
    {
        Socket program = _guest.Dial("ACCEPT 1024\nearly");
        _guest.Send(VsockOperation.Request, GuestPort, HostPort);
        VsockHeader response = _guest.Receive(VsockOperation.Response);
        Assert.That((response.SourcePort, response.DestinationPort), Is.EqualTo((HostPort, GuestPort)));
        Assert.That(Answer(program), Is.EqualTo("OK 1000\n"));
        Assert.That(_guest.Receive().Data, Is.EqualTo("early"u8.ToArray()), "what came behind the line is the stream's");
        _guest.Send(VsockOperation.ReadWrite, GuestPort, HostPort, "hello"u8);
        Assert.That(VsockGuest.Read(program, 5), Is.EqualTo("hello"u8.ToArray()));
        program.Send("world"u8);
        Assert.That(_guest.Receive().Data, Is.EqualTo("world"u8.ToArray()));
        program.Shutdown(SocketShutdown.Both);
        Assert.That(_guest.Receive(VsockOperation.Shutdown).Flags, Is.EqualTo(VsockShutdown.Both));
    }

    [TestCase("ACCEPT 1024\n")]
    [TestCase("ACCEPT 1024\r\n")]
    public void Program_SaysItsLineInTwoParts_IsHeard(string line)
    {
        Socket program = _guest.Dial(line[..9]);
        _guest.ReceivesNothing();       // it is accepted here
        _guest.ReceivesNothing();
        program.Send(Encoding.ASCII.GetBytes(line[9..]));
        _guest.Send(VsockOperation.Request, GuestPort, HostPort);
        _guest.Receive(VsockOperation.Response);
        Assert.That(Answer(program), Is.EqualTo("OK 1000\n"));
    }

    [Test]
    public void Guest_ConnectsToAnotherPort_IsResetInTheEnd()
    {
        using var guest = new VsockGuest(s_short, connects: false);
        Socket program = guest.Dial("ACCEPT 1024\n");
        guest.Send(VsockOperation.Request, GuestPort, 1025);
        VsockHeader reset = guest.Receive(VsockOperation.Reset);
        Assert.That((reset.SourcePort, reset.DestinationPort), Is.EqualTo((1025u, GuestPort)));
        Assert.That((guest.Switch.Count, program.Available), Is.EqualTo((0, 0)));
        guest.Send(VsockOperation.Request, GuestPort, HostPort);
        guest.Receive(VsockOperation.Response);
    }

    [Test]
    public void Guest_ConnectsWhereAProgramListens_IsResetAndTheProgramHearsNothing()
    {
        using var guest = new VsockGuest(s_short, connects: false);
        using Socket listener = guest.ListenOn(HostPort);
        guest.Send(VsockOperation.Request, GuestPort, HostPort);
        guest.Receive(VsockOperation.Reset);
        Assert.That(listener.Poll(0, SelectMode.SelectRead), Is.False);
    }

    // A program that has had one connection says ACCEPT again, and a back-end that was started again has not heard it yet.
    [Test]
    public void Guest_ConnectsBeforeAProgramAccepts_IsConnectedThen()
    {
        _guest.Send(VsockOperation.Request, GuestPort, HostPort);
        _guest.ReceivesNothing();
        _guest.Dial("ACCEPT 1025\n");
        Hear();
        _guest.ReceivesNothing();
        Socket program = _guest.Dial("ACCEPT 1024\n");
        _guest.Receive(VsockOperation.Response);
        Assert.That(Answer(program), Is.EqualTo("OK 1000\n"));
    }

    [Test]
    public void Guest_GivesUpBeforeAProgramAccepts_TheProgramGetsTheNextConnection()
    {
        _guest.Send(VsockOperation.Request, GuestPort, HostPort);
        _guest.Send(VsockOperation.Reset, GuestPort, HostPort);
        Socket program = _guest.Dial("ACCEPT 1024\n");
        Hear();
        Assert.That((_guest.Switch.Count, program.Available), Is.EqualTo((0, 0)));
        _guest.Send(VsockOperation.Request, GuestPort + 1, HostPort);
        _guest.Receive(VsockOperation.Response);
        Assert.That(Answer(program), Is.EqualTo("OK 1001\n"));
    }

    // Linux says nothing of the connections that it has given up.
    [Test]
    public void Guest_HasConnectedAgainAndAgain_TheProgramGetsTheLastConnection()
    {
        for (uint i = 0; i < 4; i++)
        {
            _guest.Send(VsockOperation.Request, GuestPort + i, HostPort);
            Thread.Sleep(30);   // the clock's steps
        }
        Socket program = _guest.Dial("ACCEPT 1024\n");
        _guest.Receive(VsockOperation.Response);
        Assert.That(Answer(program), Is.EqualTo("OK 1003\n"));
    }

    [Test]
    public void Guest_ConnectsManyTimesWhereNobodyAccepts_IsResetAtOnce()
    {
        for (uint i = 0; i < 64; i++)
            _guest.Send(VsockOperation.Request, GuestPort + i, HostPort);
        _guest.ReceivesNothing();
        _guest.Send(VsockOperation.Request, GuestPort + 64, HostPort);
        Assert.That(_guest.Receive(VsockOperation.Reset).DestinationPort, Is.EqualTo(GuestPort + 64));
    }

    [Test]
    public void Guest_ConnectsTwice_EachAcceptIsForOneInTheirOrder()
    {
        Socket first = _guest.Dial("ACCEPT 1024\n"), second = _guest.Dial("ACCEPT 1024\n");
        Hear();
        _guest.Send(VsockOperation.Request, GuestPort, HostPort);
        _guest.Receive(VsockOperation.Response);
        Assert.That((Answer(first), second.Available), Is.EqualTo(("OK 1000\n", 0)));
        _guest.Send(VsockOperation.Request, GuestPort + 1, HostPort);
        _guest.Receive(VsockOperation.Response);
        Assert.That(Answer(second), Is.EqualTo("OK 1001\n"));
        _guest.Send(VsockOperation.Request, GuestPort + 2, HostPort);
        _guest.ReceivesNothing();
        Assert.That(_guest.Switch.Count, Is.EqualTo(2));
    }

    [TestCase(false)]
    [TestCase(true)]
    public void Program_HasLeft_TheNextOneIsConnected(bool isSeen)
    {
        Socket first = _guest.Dial("ACCEPT 1024\n"), second = _guest.Dial("ACCEPT 1024\n");
        (Socket gone, Socket waits) = isSeen ? (second, first) : (first, second);
        Hear();
        gone.Dispose();
        if (isSeen)
        {
            Hear();
            Assert.That(Poll.Wait([new PollEntry(_guest.Switch.Ready, PollEvents.Readable)], 0), Is.Zero, "its end wakes the ring no more");
        }
        _guest.Send(VsockOperation.Request, GuestPort, HostPort);
        _guest.Receive(VsockOperation.Response);
        Assert.That(Answer(waits), Is.EqualTo("OK 1000\n"));
        _guest.Send(VsockOperation.Request, GuestPort + 1, HostPort);
        _guest.ReceivesNothing();
        Assert.That(_guest.Switch.Count, Is.EqualTo(1));
    }

    [Test]
    public void Programs_TooMany_AreThrownOutAndTheFirstOnesStay()
    {
        Socket[] programs = [.. Enumerable.Range(0, VsockSwitch.MaxAcceptors).Select(_ => _guest.Dial("ACCEPT 1024\n"))];
        for (int i = 0; i < 2 * programs.Length; i++)
            _guest.ReceivesNothing();
        Socket late = _guest.Dial("ACCEPT 1024\n");
        Eventually.True(
            () =>
            {
                _guest.ReceivesNothing();
                return late.Poll(0, SelectMode.SelectRead) && late.Available == 0;
            },
            () => "it is still there");
        for (uint i = 0; i < programs.Length; i++)
        {
            _guest.Send(VsockOperation.Request, GuestPort + i, HostPort);
            _guest.Receive(VsockOperation.Response);
            Assert.That(Answer(programs[i]), Is.EqualTo($"OK {GuestPort + i}\n"));
        }
        _guest.Dial("ACCEPT 1024\n");
        _guest.Send(VsockOperation.Request, GuestPort - 1, HostPort);
        _guest.Receive(VsockOperation.Response);        // there is room again
    }

    // Programs that say nothing have to go for others; one that waits for the guest stays.
    [Test]
    public void Programs_SilentAndMany_DoNotDriveOutOneThatWaits()
    {
        Socket program = _guest.Dial("ACCEPT 1024\n");
        for (int i = 0; i < 200; i++)
            _guest.Dial("");
        for (int i = 0; i < 250; i++)
            _guest.ReceivesNothing();
        _guest.Send(VsockOperation.Request, GuestPort, HostPort);
        _guest.Receive(VsockOperation.Response);
        Assert.That(Answer(program), Is.EqualTo("OK 1000\n"));
    }

    [Test]
    public void Clear_ProgramThatWaits_GetsTheNextGuestsConnection()
    {
        Socket program = _guest.Dial("ACCEPT 1024\n");
        Hear();
        _guest.Switch.Clear();
        _guest.Send(VsockOperation.Request, GuestPort, HostPort);
        _guest.Receive(VsockOperation.Response);
        Assert.That(Answer(program), Is.EqualTo("OK 1000\n"));
    }

    // The ports that the switch would give to a program are those that the guest asks for at the same time.
    [Test]
    public void Guest_AsksForThePortsOfAProgramThatConnectsJustNow_BothAreConnected()
    {
        const uint next = 1u << 30;
        _guest.Dial($"CONNECT {GuestPort}\n");
        Socket program = _guest.Dial($"ACCEPT {next}\n");
        _guest.Send(VsockOperation.Request, GuestPort, next);
        Assert.That(_guest.Receive(VsockOperation.Request).SourcePort, Is.EqualTo(next + 1));
        Assert.That(_guest.Receive(VsockOperation.Response).SourcePort, Is.EqualTo(next));
        Assert.That(Answer(program), Is.EqualTo("OK 1000\n"));
    }

    [Test]
    public void Host_Connects_IsAnsweredAsEver()
    {
        Socket program = _guest.Dial("CONNECT 5000\n");
        VsockHeader request = _guest.Receive(VsockOperation.Request);
        _guest.Send(VsockOperation.Response, 5000, request.SourcePort);
        Assert.That(Answer(program), Is.EqualTo($"OK {request.SourcePort}\n"));
    }

    // Has the switch look at all that programs have done.
    private void Hear()
    {
        for (int i = 0; i < 6; i++)
            _guest.ReceivesNothing();
    }

    private static string Answer(Socket program)
    {
        var line = new StringBuilder();
        do
            line.Append((char)VsockGuest.Read(program, 1)[0]);
        while (line[^1] != '\n');
        return line.ToString();
    }
}
