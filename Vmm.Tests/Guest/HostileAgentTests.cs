using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Text;
using NUnit.Framework;
using Vmm.Guest;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Guest;

/// <summary>A guest whose agent does not keep to the protocol.</summary>
public sealed class HostileAgentTests
{
    private static readonly byte[] s_hello = Numbers(AgentFrame.Magic, AgentFrame.Version, 0, 0, 0);

    [Test]
    public void Hello_OfAnotherVersion_IsRefused()
    {
        Assert.That(Refusal(Frame(AgentFrameType.Hello, 0, Numbers(AgentFrame.Magic, AgentFrame.Version + 1))), Does.Contain($"version {AgentFrame.Version + 1}"));
    }

    [Test]
    public void Hello_OfSomebodyElse_IsRefused()
    {
        Assert.That(Refusal(Frame(AgentFrameType.Hello, 0, Numbers(1, 1))), Does.Contain("another program"));
    }

    [Test]
    public void Hello_TooShort_IsRefused()
    {
        Assert.That(Refusal(Frame(AgentFrameType.Hello, 0, Numbers(AgentFrame.Magic))), Does.Contain("too short"));
    }

    [Test]
    public void Hello_Twice_IsRefused()
    {
        Assert.That(Refusal([.. Frame(AgentFrameType.Hello, 0, s_hello), .. Frame(AgentFrameType.Hello, 0, s_hello)]), Does.Contain("may not come now"));
    }

    [Test]
    public void Data_BeforeTheCommandHasStarted_IsRefused()
    {
        Assert.That(Refusal([.. Frame(AgentFrameType.Hello, 0, s_hello), .. Frame(AgentFrameType.Data, AgentStream.Output, [1])]), Does.Contain("may not come now"));
    }

    [TestCase(AgentStream.Input)]
    [TestCase((AgentStream)3)]
    [TestCase((AgentStream)255)]
    public void Data_OfAStreamThatIsNone_IsRefused(int stream)
    {
        Assert.That(Refusal(Started(Frame(AgentFrameType.Data, (AgentStream)stream, [1]))), Does.Contain($"stream {stream}"));
    }

    [Test]
    public void Data_LongerThanAny_IsRefused()
    {
        byte[] head = Frame(AgentFrameType.Data, AgentStream.Output, []);
        BinaryPrimitives.WriteInt32LittleEndian(head.AsSpan(4), AgentFrame.MaxData + 1);
        Assert.That(Refusal(Started(head)), Does.Contain("too long"));
    }

    [Test]
    public void Window_BeyondAllLengths_IsRefused()
    {
        byte[] head = Frame(AgentFrameType.Window, AgentStream.Input, []);
        BinaryPrimitives.WriteUInt32LittleEndian(head.AsSpan(4), uint.MaxValue);
        Assert.That(Refusal(Started(head)), Does.Contain("too long"));
    }

    [Test]
    public void Window_OfWhatWasNotSent_IsRefused()
    {
        Assert.That(Refusal(Started(Frame(AgentFrameType.Window, AgentStream.Input, Numbers(1)))), Does.Contain("more input"));
    }

    [Test]
    public void Data_BeyondTheWindow_IsRefused()
    {
        // Nobody reads the pipe, which takes 64 KiB: the rest is kept, up to the window.
        byte[] block = Frame(AgentFrameType.Data, AgentStream.Output, new byte[AgentFrame.MaxData]);
        Assert.That(Refusal(Started([.. Enumerable.Repeat(block, 6).SelectMany(bytes => bytes)])), Does.Contain("more output than it may"));
    }

    [Test]
    public void Data_AfterItsEnd_IsRefused()
    {
        Assert.That(Refusal(Started([.. Frame(AgentFrameType.End, AgentStream.Error, []), .. Frame(AgentFrameType.Data, AgentStream.Error, [1])])),
            Does.Contain("more output than it may"));
    }

    [TestCase(0)]
    [TestCase(2)]
    [TestCase(12)]
    [TestCase(13)]      // the agent sends it, but nobody has asked
    [TestCase(255)]
    public void Frame_ThatOnlyTheHostSends_IsRefused(int type)
    {
        Assert.That(Refusal(Started(Frame((AgentFrameType)type, 0, Numbers(1)))), Does.Contain($"type {type}"));
    }

    [Test]
    public void Exit_OfAnUnknownKind_IsRefused()
    {
        Assert.That(Refusal(Started(Frame(AgentFrameType.Exit, 0, Numbers(5, 0, 0)))), Does.Contain("way 5"));
    }

    // 147 - 128 is SIGSTOP: vmm dies of the signal that its exit status tells of.
    [TestCase(0)]
    [TestCase(65)]
    [TestCase(128)]
    [TestCase(147)]
    [TestCase(256 + 9)]
    public void Exit_BySignalThatIsNone_IsRefused(int signal)
    {
        foreach (uint kind in new uint[] { 1, 4 })
            Assert.That(Refusal(Started(Frame(AgentFrameType.Exit, 0, Numbers(kind, (uint)signal, 0)))), Does.Contain($"signal {signal}"));
    }

    [Test]
    public void Exit_CommandThatWasKilledForMemory_IsToldApartFromOtherKills()
    {
        Assert.That(Run(Started(Frame(AgentFrameType.Exit, 0, Numbers(4, 9, 2))), end: false), Is.EqualTo(new CommandEnd(CommandEndKind.OutOfMemory, 9, "", 2)));
        Assert.That(Run(Started(Frame(AgentFrameType.Exit, 0, Numbers(1, 9, 2))), end: false), Is.EqualTo(new CommandEnd(CommandEndKind.Killed, 9, "", 2)));
    }

    [Test]
    public void Connection_ThatEnds_IsALostGuest()
    {
        Assert.That(Run(Started([]), end: true), Is.EqualTo(new CommandEnd(CommandEndKind.Lost)));
    }

    [Test]
    public void GuestHasEnded_LastOutputAndExitAreOnTheirWay_AreRead()
    {
        using var pipe = new Pipe();
        CommandEnd end = RunAfterTheGuest(pipe.Writer, [.. Frame(AgentFrameType.Data, AgentStream.Output, [1, 2, 3]), .. Exit(7)]);

        Assert.That(end, Is.EqualTo(new CommandEnd(CommandEndKind.Exited, 7)));
        byte[] buffer = new byte[10];
        Assert.That(pipe.Reader.TryRead(buffer), Is.EqualTo(3));
    }

    // The kernel of a guest that was booted with quiet has said little: the agent is asked for more, and has 2 s for it.
    [TestCase(AgentFrameType.Logged, 0, 1500)]
    [TestCase(AgentFrameType.Exit, 0, 1500)]        // it is too late for that
    [TestCase(AgentFrameType.Signalled, 2000, 4000)]
    public void TimeLimit_KernelLogIsWanted_AgentIsAskedForItAndNotWaitedForLong(int answer, int least, int most)
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using (theirs)
        {
            using AgentSession session = new(new GuestCommand { Arguments = ["x"] }, new HostStreams(null, null, null, false, false), TimeSpan.FromMilliseconds(200)) { AsksForKernelLog = true };
            Assert.That(theirs.TrySend(Started([]), []), Is.Positive);
            Task<(CommandEnd, long)> run = Task.Run(() => (session.Run(ours), Environment.TickCount64));
            byte[] log = Frame(AgentFrameType.Log, 0, []);
            byte[] received = [];
            byte[] buffer = new byte[1000];
            while (!received.AsSpan().EndsWith(log))
            {
                Assert.That(Poll.Wait([new PollEntry(theirs, PollEvents.Readable)], 10_000), Is.EqualTo(1));
                received = [.. received, .. buffer.AsSpan(0, theirs.TryRead(buffer))];
            }
            long asked = Environment.TickCount64;
            Assert.That(theirs.TrySend(Frame((AgentFrameType)answer, 0, Numbers(0, 0, 0)), []), Is.Positive);

            Assert.That(run.Wait(10_000), Is.True);
            (CommandEnd end, long ended) = run.Result;
            Assert.That(end, Is.EqualTo(new CommandEnd(CommandEndKind.TimedOut)));
            Assert.That(ended - asked, Is.InRange(least - 100, most));
        }
    }

    [Test]
    public void GuestHasEnded_NothingMoreComes_IsALostGuest()
    {
        using var pipe = new Pipe();
        Assert.That(RunAfterTheGuest(pipe.Writer, []), Is.EqualTo(new CommandEnd(CommandEndKind.Lost)));
    }

    [Test]
    public void GuestHasEnded_NoAgentHasConnected_IsALostGuestAtOnce()
    {
        using var session = new AgentSession(new GuestCommand { Arguments = ["x"] }, new HostStreams(null, null, null, false, false), null);
        session.GuestHasEnded();
        long start = Environment.TickCount64;

        Assert.That(session.Run(null, () => null), Is.EqualTo(new CommandEnd(CommandEndKind.Lost)));
        Assert.That(Environment.TickCount64 - start, Is.LessThan(1500));
    }

    [TestCase("NO 1\n")]
    [TestCase("OK\n")]
    [TestCase("\n")]
    [TestCase("OK 12345678901234567890123456789012345")]
    public void Answer_ThatIsNone_IsRefused(string answer)
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using (theirs)
        {
            using AgentSession session = NewSession();
            Assert.That(theirs.TrySend(Encoding.ASCII.GetBytes(answer), []), Is.EqualTo(answer.Length));
            Assert.That(() => session.Run(ours, () => null), Throws.TypeOf<VmmException>().With.Message.Contains("does not say OK"));
        }
    }

    [Test]
    public void Answer_InParts_IsTakenAndWhatFollowsIsTheAgents()
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using (theirs)
        {
            using AgentSession session = NewSession();
            Task<CommandEnd> end = Task.Run(() => session.Run(ours, () => null));
            foreach (byte[] part in (byte[][])["O"u8.ToArray(), "K 10"u8.ToArray(), [.. "00\n"u8, .. Started(Exit(7))]])
            {
                Assert.That(theirs.TrySend(part, []), Is.EqualTo(part.Length));
                Thread.Sleep(50);
            }
            Assert.That(end.Wait(10_000), Is.True);
            Assert.That(end.Result, Is.EqualTo(new CommandEnd(CommandEndKind.Exited, 7)));
        }
    }

    // Its back-end died, and is started again.
    [TestCase("")]
    [TestCase("OK")]
    public void Connection_EndsBeforeTheAgentHasConnected_AnotherOneIsAskedFor(string answer)
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        (UnixSocket next, UnixSocket agent) = UnixSocket.Pair();
        using (agent)
        {
            using AgentSession session = NewSession();
            if (answer.Length > 0)
                Assert.That(theirs.TrySend(Encoding.ASCII.GetBytes(answer), []), Is.EqualTo(answer.Length));
            theirs.Dispose();
            Assert.That(agent.TrySend([.. "OK 1001\n"u8, .. Started(Exit(7))], []), Is.Positive);
            int attempts = 0;
            Assert.That(session.Run(ours, () => ++attempts == 3 ? next : null), Is.EqualTo(new CommandEnd(CommandEndKind.Exited, 7)));
            Assert.That((attempts, ours.IsClosed), Is.EqualTo((3, true)));
        }
    }

    [Test]
    public void Connection_EndsAtOnceEachTime_TheNextOneIsAskedForAfterAPause()
    {
        using AgentSession session = new(new GuestCommand { Arguments = ["x"] }, new HostStreams(null, null, null, false, false), TimeSpan.FromSeconds(1));
        int attempts = 0;
        Assert.That(session.Run(null, Ended), Is.EqualTo(new CommandEnd(CommandEndKind.TimedOut)));
        Assert.That(attempts, Is.InRange(2, 25));   // 50 ms each

        UnixSocket Ended()
        {
            attempts++;
            (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
            theirs.Dispose();
            return ours;
        }
    }

    // The agent connects once: to ask again would be to wait for ever.
    [Test]
    public void Connection_EndsAfterTheAnswer_IsALostGuest()
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using AgentSession session = NewSession();
        Assert.That(theirs.TrySend("OK 1000\n"u8, []), Is.Positive);
        theirs.Dispose();
        Assert.That(session.Run(ours, () => throw new InvalidOperationException()), Is.EqualTo(new CommandEnd(CommandEndKind.Lost)));
    }

    [Test]
    public void Connection_EndsAfterTheAgentHasSpoken_IsALostGuest()
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using AgentSession session = NewSession();
        Assert.That(theirs.TrySend([.. "OK 1000\n"u8, .. Started([])], []), Is.Positive);
        theirs.Dispose();
        Assert.That(session.Run(ours, () => throw new InvalidOperationException()), Is.EqualTo(new CommandEnd(CommandEndKind.Lost)));
    }

    private static AgentSession SessionThatWrites(Pipe pipe) =>
        new(new GuestCommand { Arguments = ["x"] }, new HostStreams(null, pipe.Writer, null, false, false), null);

    // The command has written 120,000 bytes, which is more than a pipe holds, and has ended.
    private static Task<CommandEnd> RunToItsEnd(AgentSession session, UnixSocket ours, UnixSocket theirs, uint status)
    {
        byte[] block = Frame(AgentFrameType.Data, AgentStream.Output, new byte[60_000]);
        Assert.That(theirs.TrySend(Started([.. block, .. block, .. Exit(status)]), []), Is.GreaterThan(120_000));
        return Task.Run(() => session.Run(ours));
    }

    // The reader begins after the time that is left for what is on its way from the guest.
    [Test]
    public void GuestHasEnded_SlowReader_GetsAllOutput()
    {
        using var pipe = new Pipe();
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using (theirs)
        {
            using AgentSession session = SessionThatWrites(pipe);
            Task<CommandEnd> end = RunToItsEnd(session, ours, theirs, 0);
            Assert.That(Poll.Wait([new PollEntry(theirs, PollEvents.Readable)], 10_000), Is.EqualTo(1));
            session.GuestHasEnded();
            Thread.Sleep(3000);
            byte[] all = new byte[120_000];
            int count = 0;
            while (count < all.Length && Poll.Wait([new PollEntry(pipe.Reader, PollEvents.Readable)], 2000) == 1)
                count += pipe.Reader.TryRead(all.AsSpan(count));

            Assert.That(count, Is.EqualTo(all.Length));
            Assert.That(end.Wait(10_000), Is.True);
            Assert.That(end.Result, Is.EqualTo(new CommandEnd(CommandEndKind.Exited)));
        }
    }

    [Test]
    public void Leave_OutputThatNobodyReads_DoesNotHoldTheProcess()
    {
        using var pipe = new Pipe();
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using (theirs)
        {
            using AgentSession session = SessionThatWrites(pipe);
            Task<CommandEnd> end = RunToItsEnd(session, ours, theirs, 0);
            Assert.That(end.Wait(500), Is.False, "nobody has read the output");
            session.Leave();

            Assert.That(end.Wait(10_000), Is.True);
            Assert.That(end.Result, Is.EqualTo(new CommandEnd(CommandEndKind.Lost)), "a part of the output is missing: no status of the command may hide that");
        }
    }

    // It comes to its end all the same.
    [Test]
    public void Leave_OutputThatIsReadInTime_HasTheCommandsStatus()
    {
        using var pipe = new Pipe();
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using (theirs)
        {
            using AgentSession session = SessionThatWrites(pipe);
            Task<CommandEnd> end = RunToItsEnd(session, ours, theirs, 7);
            Assert.That(end.Wait(500), Is.False, "nobody has read the output");
            session.Leave();
            byte[] all = new byte[120_000];
            for (int count = 0; count < all.Length;)
                count += pipe.Reader.TryRead(all.AsSpan(count));

            Assert.That(end.Wait(10_000), Is.True);
            Assert.That(end.Result, Is.EqualTo(new CommandEnd(CommandEndKind.Exited, 7)));
        }
    }

    // Whatever comes, the session ends with what it says of the agent: no other exception.
    [Test]
    public void Frame_OfEachTypeAndLength_IsTakenOrRefused([Values(0, 1, 2)] int before, [Values(0, 0x01, 0xFF)] byte value)
    {
        byte[][] greetings = [[], Frame(AgentFrameType.Hello, 0, s_hello), Started([])];
        for (int type = 0; type <= 16; type++)
        {
            for (int length = 0; length <= 24; length++)
            {
                byte[] data = new byte[length];
                Array.Fill(data, value);
                foreach (AgentStream stream in (AgentStream[])[AgentStream.Input, AgentStream.Output])
                {
                    byte[] frame = Frame((AgentFrameType)type, stream, data);
                    Check([.. greetings[before], .. frame], $"type {type}, {length} bytes");
                    Check([.. greetings[before], .. frame.AsSpan(0, frame.Length - 1)], $"type {type}, {length} bytes without the last one");
                }
            }
        }

        static void Check(byte[] sent, string what)
        {
            try
            {
                Run(sent, end: true);
            }
            catch (Exception e)
            {
                Assert.That(e, Is.TypeOf<VmmException>(), what);
            }
        }
    }

    [TestCase(0)]
    [TestCase(7)]
    [TestCase(8)]
    [TestCase(11)]
    public void Exit_TooShort_IsRefused(int length) =>
        Assert.That(Refusal(Started(Frame(AgentFrameType.Exit, 0, new byte[length]))), Does.Contain("too short"));

    [Test]
    public void Signal_ThatNobodyTakes_IsAGuestThatDoesNotReact()
    {
        using var pipe = new Pipe();
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using (theirs)
        {
            using var session = new AgentSession(new GuestCommand { Arguments = ["x"] }, new HostStreams(null, pipe.Writer, null, false, false), null);
            Assert.That(theirs.TrySend(Started([]), []), Is.GreaterThan(0));
            Task<CommandEnd> end = Task.Run(() => session.Run(ours));
            Eventually.True(() => session.Signal(15), () => "the session does not begin");

            Assert.That(end.Wait(10_000), Is.True);
            Assert.That(end.Result, Is.EqualTo(new CommandEnd(CommandEndKind.Unresponsive, 15)));
        }
    }

    // A fast command's first output is there with the news that it runs. What is written to a terminal that is not raw yet has \r\r\n at its lines' ends.
    [Test]
    public void Started_OutputComesWithIt_FindsTheTerminalRaw()
    {
        using var terminal = new PseudoTerminal();
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using (theirs)
        {
            var command = new GuestCommand { Arguments = ["x"], HasTerminal = true, HasTerminalError = true };
            using var session = new AgentSession(command, new HostStreams(terminal.Terminal, terminal.Terminal, null, hasTerminal: true, closesOutput: false), TimeSpan.FromSeconds(10));
            Assert.That(theirs.TrySend(Started([.. Frame(AgentFrameType.Data, AgentStream.Output, "one\r\n"u8.ToArray()), .. Exit(0)]), []), Is.Positive);

            Assert.That(session.Run(ours), Is.EqualTo(new CommandEnd(CommandEndKind.Exited)));
        }
        byte[] screen = new byte[100];
        Assert.That(Encoding.ASCII.GetString(screen, 0, terminal.User.TryRead(screen)), Is.EqualTo("one\r\n"));
    }

    // The agent has the size from before that.
    [Test]
    public void WindowChanged_BetweenStartAndStarted_IsToldAfterwards()
    {
        using var terminal = new PseudoTerminal();
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using (theirs)
        {
            var command = new GuestCommand { Arguments = ["x"], HasTerminal = true, HasTerminalError = true };
            using var session = new AgentSession(command, new HostStreams(terminal.Terminal, null, null, hasTerminal: true, closesOutput: false), TimeSpan.FromSeconds(10));
            Task<CommandEnd> run = Task.Run(() => session.Run(ours));
            Assert.That(theirs.TrySend(Frame(AgentFrameType.Hello, 0, s_hello), []), Is.Positive);
            byte[] buffer = new byte[1000];
            Assert.That(Poll.Wait([new PollEntry(theirs, PollEvents.Readable)], 10_000), Is.EqualTo(1), "START");
            Assert.That(theirs.TryRead(buffer), Is.Positive);
            terminal.SetSize(33, 77);
            session.WindowChanged();
            Assert.That(theirs.TrySend(Frame(AgentFrameType.Started, 0, Numbers(1)), []), Is.Positive);

            byte[] resize = Frame(AgentFrameType.Resize, 0, Numbers(33 | (77 << 16)));
            Assert.That(Poll.Wait([new PollEntry(theirs, PollEvents.Readable)], 5000), Is.EqualTo(1), "RESIZE");
            Assert.That(buffer[..theirs.TryRead(buffer)], Is.EqualTo(resize));
            Assert.That(theirs.TrySend(Exit(0), []), Is.Positive);
            Assert.That(run.Result, Is.EqualTo(new CommandEnd(CommandEndKind.Exited)));
        }
    }

    // A guest that hangs is no reason to end it when somebody changes a window.
    [Test]
    public void WindowChanged_NobodyTakesTheSignal_IsNoSignOfTrouble()
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using (theirs)
        {
            using AgentSession session = new(new GuestCommand { Arguments = ["x"] }, new HostStreams(null, null, null, false, false), TimeSpan.FromSeconds(7));
            Assert.That(theirs.TrySend(Started([]), []), Is.Positive);
            Task<CommandEnd> end = Task.Run(() => session.Run(ours));
            Eventually.True(() => session.HasStarted, () => "the session does not begin");
            session.WindowChanged();

            Assert.That(end.Wait(10_000), Is.True);
            Assert.That(end.Result, Is.EqualTo(new CommandEnd(CommandEndKind.TimedOut)));
        }
    }

    private static CommandEnd RunAfterTheGuest(FileDescriptor output, byte[] sent)
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using (theirs)
        {
            using var session = new AgentSession(
                new GuestCommand { Arguments = ["x"] }, new HostStreams(null, output, null, false, false), TimeSpan.FromSeconds(10));
            Assert.That(theirs.TrySend(Started(sent), []), Is.GreaterThan(0));
            session.GuestHasEnded();
            return session.Run(ours);
        }
    }

    private static AgentSession NewSession() =>
        new(new GuestCommand { Arguments = ["x"] }, new HostStreams(null, null, null, false, false), TimeSpan.FromSeconds(10));

    private static byte[] Exit(uint status) => Frame(AgentFrameType.Exit, 0, Numbers(0, status, 0));

    private static string Refusal(byte[] sent) => Assert.Throws<VmmException>(() => Run(sent, end: false))!.Message;

    private static CommandEnd Run(byte[] sent, bool end)
    {
        using var pipe = new Pipe();
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using (theirs)
        {
            using var session = new AgentSession(
                new GuestCommand { Arguments = ["x"] }, new HostStreams(null, pipe.Writer, null, false, false), TimeSpan.FromSeconds(10));
            Task write = Task.Run(() =>
            {
                ReadOnlySpan<byte> rest = sent;
                while (!rest.IsEmpty && theirs.TrySend(rest, []) is int count and not (-Errnos.Epipe or -Errnos.Econnreset))
                    rest = rest[Math.Max(count, 0)..];
                if (end)
                    theirs.Shutdown();
            });
            try
            {
                return session.Run(ours);
            }
            finally
            {
                session.Dispose();
                write.Wait();
            }
        }
    }

    private static byte[] Started(byte[] then) =>
        [.. Frame(AgentFrameType.Hello, 0, s_hello), .. Frame(AgentFrameType.Started, 0, Numbers(1)), .. then];

    private static byte[] Frame(AgentFrameType type, AgentStream stream, byte[] data)
    {
        var head = new AgentFrame(type, stream, 0, (uint)data.Length);
        return [.. MemoryMarshal.AsBytes(new ReadOnlySpan<AgentFrame>(in head)), .. data];
    }

    private static byte[] Numbers(params uint[] numbers) => MemoryMarshal.AsBytes<uint>(numbers).ToArray();
}
