using System.Runtime.Versioning;
using NUnit.Framework;
using Vmm.Guest;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Guest;

[SupportedOSPlatform("linux")]
public sealed class HostStreamsTests
{
    // Somebody else has the pipe, too, and has filled it since it was asked whether there is room.
    [Test]
    public void Output_PipeThatIsFullAllTheSame_DoesNotHoldTheSession()
    {
        using var pipe = new Pipe();
        using FileDescriptor other = FileDescriptor.Open($"/proc/self/fd/{pipe.Writer.Number}", OpenMode.WriteNonBlocking);
        WriteWithoutRoom(pipe.Writer, pipe.Reader, other);
    }

    [Test]
    public void Output_SocketThatIsFullAllTheSame_DoesNotHoldTheSession()
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using (ours)
        using (theirs)
        {
            int isOn = 0;
            Ioctl.Call(ours, FileDescriptor.NonBlockingRequest, ref isOn);
            WriteWithoutRoom(ours, theirs, null);
        }
    }

    // make | less: both wait for the same terminal, and the other one has read the key.
    [TestCase("pipe")]
    [TestCase("terminal")]
    [TestCase("socket")]
    public void Input_SomebodyElseHasReadIt_DoesNotHoldTheSession(string kind)
    {
        using var pipe = new Pipe();
        using var terminal = new PseudoTerminal();
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        (UnixSocket connection, UnixSocket peer) = UnixSocket.Pair();
        using (ours)
        using (theirs)
        using (peer)
        {
            int isOn = 0;
            Ioctl.Call(ours, FileDescriptor.NonBlockingRequest, ref isOn);
            (FileDescriptor input, FileDescriptor user) = kind switch
            {
                "pipe" => (pipe.Reader, pipe.Writer),
                "terminal" => (terminal.Terminal, terminal.User),
                _ => ((FileDescriptor)ours, theirs),
            };
            string flags = Flags(input);
            using var agent = new AgentConnection(connection);
            using var streams = new HostStreams(input, null, null, hasTerminal: false, closesOutput: false);
            streams.Input.Begin(agent);
            Task<bool> read = Task.Run(() => streams.Input.Read(agent));
            bool hasReturned = read.Wait(2000);
            user.WriteAll("typed\n"u8, "the input");
            Assert.That(read.Wait(10_000) && read.Result);
            Assert.That(hasReturned, Is.True, "it waits for more");

            Eventually.True(() => streams.Input.Read(agent) && Poll.Wait([new PollEntry(peer, PollEvents.Readable)], 0) == 1, () => "nothing is passed on");
            byte[] frame = new byte[100];
            Assert.That(frame[8..peer.TryRead(frame)], Is.EqualTo("typed\n"u8.ToArray()));
            Assert.That(Flags(input), Is.EqualTo(flags), "others have the same description");
            Assert.That(streams.Input.Failure, Is.Zero);
        }

        static string Flags(FileDescriptor descriptor) => File.ReadLines($"/proc/self/fdinfo/{descriptor.Number}").First(line => line.StartsWith("flags:", StringComparison.Ordinal));
    }

    // Who opens a master by its path once more gets another terminal.
    [Test]
    public void Streams_MasterOfATerminal_AreThatTerminals()
    {
        using TerminalMaster master = TerminalMaster.Open();
        using FileDescriptor user = FileDescriptor.Open(master.Path, OpenMode.ReadWrite);
        (UnixSocket connection, UnixSocket peer) = UnixSocket.Pair();
        using (peer)
        {
            using var agent = new AgentConnection(connection);
            using var streams = new HostStreams(master, null, null, hasTerminal: false, closesOutput: false);
            streams.Input.Begin(agent);
            user.WriteAll("typed"u8, "the terminal");
            Assert.That(streams.Input.Read(agent));
            Assert.That(Poll.Wait([new PollEntry(peer, PollEvents.Readable)], 2000), Is.EqualTo(1), "nothing is passed on");
            byte[] frame = new byte[100];
            Assert.That(frame[8..peer.TryRead(frame)], Is.EqualTo("typed"u8.ToArray()));
            Assert.That((TerminalMaster.Is(master), TerminalMaster.Is(user)), Is.EqualTo((true, false)));
        }
    }

    [Test]
    public void TerminalSize_OnlyTheOutputIsATerminal_IsThatOnes()
    {
        using var terminal = new PseudoTerminal();
        using var pipe = new Pipe();
        terminal.SetSize(40, 100);
        using (var streams = new HostStreams(pipe.Reader, terminal.Terminal, null, hasTerminal: true, closesOutput: false))
            Assert.That((streams.TerminalSize, streams.HasTerminal), Is.EqualTo((((ushort)40, (ushort)100), true)));
        using (var streams = new HostStreams(pipe.Reader, terminal.Terminal, null, hasTerminal: false, closesOutput: false))
            Assert.That((streams.TerminalSize, streams.HasTerminal), Is.EqualTo((((ushort)0, (ushort)0), false)), "nobody needs it");
    }

    // The reader of a pipe sees its end once nobody has it open.
    [Test]
    public void Dispose_OutputToAPipe_LetsItEnd()
    {
        using var pipe = new Pipe();
        new HostStreams(null, pipe.Writer, pipe.Writer, hasTerminal: false, closesOutput: false).Dispose();
        pipe.Writer.Dispose();

        Assert.That(Poll.Wait([new PollEntry(pipe.Reader, PollEvents.Readable)], 1000), Is.EqualTo(1));
        Assert.That(pipe.Reader.TryRead(new byte[1]), Is.Zero);
    }

    // The session goes on until the process is stopped, and output of the guest has it take the terminal.
    [Test]
    public void TakeTerminal_ProcessIsToBeStopped_WaitsUntilItGoesOn()
    {
        using var terminal = new PseudoTerminal();
        string before = terminal.Settings();
        using var streams = new HostStreams(terminal.Terminal, null, null, hasTerminal: true, closesOutput: false);
        streams.TakeTerminal();
        Assert.That(terminal.Settings(), Is.Not.EqualTo(before), "raw");
        streams.SuspendTerminal();
        streams.TakeTerminal();
        Assert.That(terminal.Settings(), Is.EqualTo(before), "stopped");
        streams.TerminalMayHaveChanged();
        streams.TakeTerminal();
        Assert.That(terminal.Settings(), Is.Not.EqualTo(before), "goes on");
        streams.RestoreTerminal();
        Assert.That(terminal.Settings(), Is.EqualTo(before), "ended");
    }

    private static void WriteWithoutRoom(FileDescriptor target, FileDescriptor reader, FileDescriptor? other)
    {
        (UnixSocket connection, UnixSocket peer) = UnixSocket.Pair();
        using (peer)
        using (connection)
        {
            using var agent = new AgentConnection(connection);
            using var streams = new HostStreams(null, target, null, hasTerminal: false, closesOutput: false);
            int filled = Fill(target, other);
            streams.Output.Add(agent, [1, 2, 3]);
            Task write = Task.Run(() => streams.Output.Happened(agent, PollEvents.Writable));
            bool hasReturned = write.Wait(5000);
            byte[] buffer = new byte[4096];
            for (int read = 0; read < filled;)
                read += reader.TryRead(buffer.AsSpan(0, Math.Min(buffer.Length, filled - read)));
            write.Wait();
            Assert.That(hasReturned, Is.True, "it waits for the reader");
            Assert.That(streams.Output.HasWork, Is.True);

            streams.Output.Happened(agent, PollEvents.Writable);
            Assert.That(streams.Output.HasWork, Is.False);
            Assert.That(buffer[..reader.TryRead(buffer)], Is.EqualTo(new byte[] { 1, 2, 3 }));
        }
    }

    private static int Fill(FileDescriptor target, FileDescriptor? other)
    {
        byte[] block = new byte[4096];
        int filled = 0;
        while ((other?.TryWrite(block) ?? target.TryWriteToSocket(block)) is int count and > 0)
            filled += count;
        return filled;
    }
}
