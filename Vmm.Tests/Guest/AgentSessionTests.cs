using System.Runtime.Versioning;
using System.Security.Cryptography;
using System.Text;
using NUnit.Framework;
using Vmm.Guest;
using Vmm.Tests.Fakes;
using Vmm.Tests.Integration.Linux.Devices;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Guest;

/// <summary>Sessions with the real agent, which runs as a process here.</summary>
[SupportedOSPlatform("linux")]
public sealed class AgentSessionTests
{
    private const int NoExecutable = 8;     // ENOEXEC
    private const int Hangup = 1, Interrupt = 2, PipeSignal = 13, Terminate = 15;

    private string _file = "";

    [SetUp]
    public void MakeFile() => _file = Path.GetTempFileName();

    [TearDown]
    public void RemoveFile() => File.Delete(_file);

    [Test]
    public void Run_ShellWithThreeStreams_AreApartAndWhole()
    {
        Result result = Run(["sh", "-c", "cat; echo to stderr >&2; exit 7"], "some input\n"u8.ToArray());

        Assert.That(result.End, Is.EqualTo(new CommandEnd(CommandEndKind.Exited, 7)));
        Assert.That(Encoding.UTF8.GetString(result.Output), Is.EqualTo("some input\n"));
        Assert.That(result.Errors, Is.EqualTo("to stderr\n"));
    }

    [Test]
    public void Run_CatOfMuch_ComesBackUnchanged()
    {
        byte[] data = new byte[5_000_001];
        RandomNumberGenerator.Fill(data);

        Result result = Run(["cat"], data);

        Assert.That(result.End, Is.EqualTo(new CommandEnd(CommandEndKind.Exited)));
        Assert.That(SHA256.HashData(result.Output), Is.EqualTo(SHA256.HashData(data)));
    }

    [Test]
    public void Run_AgentOnATerminal_PassesAllBytes()
    {
        byte[] data = new byte[1_000_001];
        RandomNumberGenerator.Fill(data);
        using var agent = new AgentProcess(usesTerminal: true);
        using var output = new Pipe();
        using var input = new Pipe();
        using var session = new AgentSession(
            new GuestCommand { Arguments = ["sh", "-c", "cat; exit 7"] }, new HostStreams(input.Reader, output.Writer, null, hasTerminal: false, closesOutput: false), null);
        Task<CommandEnd> end = Task.Run(() => session.Run(agent.Socket));
        Task writing = Task.Run(() =>
        {
            input.Writer.WriteAll(data, "input");
            input.Writer.Dispose();
        });
        byte[] received = new byte[data.Length];
        int count = 0;
        Eventually.True(
            () =>
            {
                int read = output.Reader.TryRead(received.AsSpan(count));
                count += Math.Max(0, read);
                return count == received.Length;
            },
            () => $"{count} bytes came");

        Assert.That(end.Wait(10_000), Is.True, "the session goes on");
        Assert.That(end.Result, Is.EqualTo(new CommandEnd(CommandEndKind.Exited, 7)));
        Assert.That(writing.IsCompletedSuccessfully, Is.True);
        Assert.That(SHA256.HashData(received), Is.EqualTo(SHA256.HashData(data)));
    }

    [Test]
    public void Run_InputThatNobodyReads_DoesNotHoldTheCommand()
    {
        Result result = Run(["sh", "-c", "exec 0<&-; echo done"], new byte[3_000_000]);

        Assert.That(result.End, Is.EqualTo(new CommandEnd(CommandEndKind.Exited)));
        Assert.That(Encoding.UTF8.GetString(result.Output), Is.EqualTo("done\n"));
    }

    // An opening of it that comes after the last writer's end is never told of that.
    [Test]
    public void Run_InputIsAFifoWhoseWriterHasEnded_CommandReadsItAll()
    {
        using var agent = new AgentProcess();
        using var output = new Pipe();
        string fifo = $"{_file}.fifo";
        HostCommand.Run("mkfifo", fifo);
        try
        {
            using FileDescriptor input = FileDescriptor.Open(fifo, OpenMode.ReadNonBlocking);
            using (FileDescriptor writer = FileDescriptor.Open(fifo, OpenMode.WriteNonBlocking))
                writer.WriteAll("all of it"u8, "the FIFO");
            using var session = new AgentSession(new GuestCommand { Arguments = ["cat"] }, new HostStreams(input, output.Writer, null, false, false), TimeSpan.FromSeconds(10));

            Assert.That(session.Run(agent.Socket), Is.EqualTo(new CommandEnd(CommandEndKind.Exited)));
            byte[] buffer = new byte[100];
            Assert.That(buffer[..output.Reader.TryRead(buffer)], Is.EqualTo("all of it"u8.ToArray()));
        }
        finally
        {
            File.Delete(fifo);
        }
    }

    [Test]
    public void Run_InputThatCannotBeRead_IsTold()
    {
        using FileDescriptor directory = FileDescriptor.Open("/", OpenMode.ReadOnly);

        Assert.That(RunWith(directory), Is.EqualTo(new CommandEnd(CommandEndKind.InputLost, Errnos.Eisdir, "standard input")));
    }

    // As nohup(1) does in place of a terminal.
    [Test]
    public void Run_InputThatIsOnlyOpenForWriting_HasEnded()
    {
        using FileDescriptor nothing = FileDescriptor.Open("/dev/null", OpenMode.WriteNonBlocking);

        Assert.That(RunWith(nothing), Is.EqualTo(new CommandEnd(CommandEndKind.Exited)));
    }

    private static CommandEnd RunWith(FileDescriptor input)
    {
        using var agent = new AgentProcess();
        using var session = new AgentSession(new GuestCommand { Arguments = ["cat"] }, new HostStreams(input, null, null, false, false), TimeSpan.FromSeconds(10));
        return session.Run(agent.Socket);
    }

    [Test]
    public void Run_EnvironmentAndDirectory_AreTheCommands()
    {
        Result result = Run(new GuestCommand
        {
            Arguments = ["sh", "-c", "echo \"$NAME|$1|$(pwd)|$PATH|$HOME\"", "sh", " two  words "],
            Environment = ["NAME=a value", "HOME=/nowhere"],
            Directory = "/usr",
        });

        Assert.That(Encoding.UTF8.GetString(result.Output),
            Is.EqualTo("a value| two  words |/usr|/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin|/nowhere\n"));
    }

    [Test]
    public void Run_BytesThatAreNotUtf8_ArriveAsTheyAre()
    {
        Result result = Run(new GuestCommand { Arguments = ["sh", "-c", "printf '%s|%s' \"$1\" \"$NAME\"", "sh", "a\uDCFFb"], Environment = ["NAME=\uDC80"], Directory = "/" });

        Assert.That(result.Output, Is.EqualTo(new byte[] { (byte)'a', 0xFF, (byte)'b', (byte)'|', 0x80 }));
    }

    // The name by which the user went there.
    [TestCase("PWD={0}", "{0}")]
    [TestCase("PWD=/", "/usr/bin")]
    [TestCase("PWD=/no/such", "/usr/bin")]
    [TestCase("PWD=.", "/usr/bin")]
    [TestCase("A=b", "/usr/bin")]
    public void Run_NameOfTheWorkingDirectory_IsKeptWhereItLeadsThere(string variable, string expected)
    {
        string link = $"{_file}.link";
        File.CreateSymbolicLink(link, "/usr/bin");
        try
        {
            Result result = Run(new GuestCommand { Arguments = ["sh", "-c", "echo \"$PWD\""], Environment = [variable.Replace("{0}", link, StringComparison.Ordinal)], Directory = "/usr/bin" });

            Assert.That(Encoding.UTF8.GetString(result.Output), Is.EqualTo($"{expected.Replace("{0}", link, StringComparison.Ordinal)}\n"));
        }
        finally
        {
            File.Delete(link);
        }
    }

    [TestCase(false)]
    [TestCase(true)]
    public void Run_ProgramOfAnotherMachine_IsNoScript(bool isInPath)
    {
        byte[] program = [0x7F, (byte)'E', (byte)'L', (byte)'F', 2, 1, 1, .. new byte[57]];
        program[16] = 2;                            // ET_EXEC
        (program[18], program[19]) = (0xFE, 0xFE);  // no machine's number

        Assert.That(RunFile(program, isInPath).End, Is.EqualTo(new CommandEnd(CommandEndKind.NotExecuted, NoExecutable, isInPath ? Path.GetFileName(_file) : _file)));
    }

    [TestCase(false)]
    [TestCase(true)]
    public void Run_ScriptThatNamesNoShell_IsRunByOne(bool isInPath)
    {
        Result result = RunFile("echo \"$0|$1|$2\"; exit 3"u8, isInPath, "a  b", "");

        Assert.That((result.End, Encoding.UTF8.GetString(result.Output)), Is.EqualTo((new CommandEnd(CommandEndKind.Exited, 3), $"{_file}|a  b|\n")));
    }

    // What may not be executed is passed over, but is the reason if there is no other of that name.
    [Test]
    public void Run_ProgramInPathThatMayNotBeExecuted_IsTold()
    {
        string path = $"/no/such::/etc/passwd:{Path.GetDirectoryName(_file)}";
        Assert.That(Run(new GuestCommand { Arguments = [Path.GetFileName(_file)], Environment = [$"PATH={path}"] }).End.Value, Is.EqualTo(Errnos.Eacces));
        Assert.That(Run(new GuestCommand { Arguments = ["no-such-command"], Environment = [$"PATH={path}"] }).End.Value, Is.EqualTo(Errnos.Enoent));
        Assert.That(Run(new GuestCommand { Arguments = [""], Environment = [$"PATH={path}"] }).End.Value, Is.EqualTo(Errnos.Enoent));
        Assert.That(Run(new GuestCommand { Arguments = ["sh", "-c", "exit 3"], Environment = [$"PATH={path}:/usr/bin:/bin"] }).End.Value, Is.EqualTo(3));
        Assert.That(Run(new GuestCommand { Arguments = ["sh", "-c", "exit 3"], Environment = ["PATH="], Directory = "/bin" }).End.Value, Is.EqualTo(3));
    }

    private Result RunFile(ReadOnlySpan<byte> content, bool isInPath, params string[] arguments)
    {
        File.WriteAllBytes(_file, content);
        File.SetUnixFileMode(_file, UnixFileMode.UserRead | UnixFileMode.UserExecute);
        return Run(new GuestCommand { Arguments = [isInPath ? Path.GetFileName(_file) : _file, .. arguments], Environment = [$"PATH=/no/such:{Path.GetDirectoryName(_file)}:/usr/bin:/bin"] });
    }

    [TestCase("/no/such/program", Errnos.Enoent)]
    [TestCase("/etc/passwd", Errnos.Eacces)]
    public void Run_ProgramThatCannotBeExecuted_IsTold(string program, int error)
    {
        Result result = Run([program]);

        Assert.That(result.End, Is.EqualTo(new CommandEnd(CommandEndKind.NotExecuted, error, program)));
    }

    // What is said of the directory on standard error is not read any more.
    [TestCase("./x", true)]
    [TestCase("bin/x", true)]
    [TestCase("/x", false)]
    [TestCase("no-such-command", false)]
    public void Run_ProgramOfADirectoryThatIsNotThere_IsToldWithIt(string program, bool isToldOfDirectory)
    {
        Result result = Run(new GuestCommand { Arguments = [program], Directory = "/no/such", IsDirectoryOptional = true, IsQuiet = true });

        Assert.That(result.End, Is.EqualTo(new CommandEnd(CommandEndKind.NotExecuted, Errnos.Enoent, program + (!isToldOfDirectory ? ""
            : " in / (cannot go to /no/such: No such file or directory; --bind brings a directory of this machine, --workdir gives another one)"))));
    }

    [Test]
    public void Run_DirectoryThatIsNotThere_IsTold()
    {
        Result result = Run(new GuestCommand { Arguments = ["true"], Directory = "/no/such" });

        Assert.That(result.End, Is.EqualTo(new CommandEnd(CommandEndKind.NotPrepared, Errnos.Enoent, "cannot go to /no/such")));
    }

    [Test]
    public void Run_DirectoryThatIsNotThereAndNeedNotBe_IsTheRootAndTold()
    {
        Result result = Run(new GuestCommand { Arguments = ["pwd"], Directory = "/no/such", IsDirectoryOptional = true });

        Assert.That(Encoding.UTF8.GetString(result.Output), Is.EqualTo("/\n"));
        Assert.That(result.Errors, Is.EqualTo("vmm: cannot go to /no/such: No such file or directory: the command runs in / (--bind brings a directory of this machine, --workdir gives another one)\n"));
    }

    [Test]
    public void Run_DirectoryThatIsNotThereAndQuiet_IsTheRootAndNotTold()
    {
        Result result = Run(new GuestCommand { Arguments = ["pwd"], Directory = "/no/such", IsDirectoryOptional = true, IsQuiet = true });

        Assert.That(Encoding.UTF8.GetString(result.Output), Is.EqualTo("/\n"));
        Assert.That(result.Errors, Is.Empty);
    }

    [Test]
    public void Run_ErrorIsOutput_KeepsTheOrder()
    {
        string expected = string.Concat(Enumerable.Range(0, 200).Select(i => $"out {i}\nerror {i}\n"));

        Result result = Run(new GuestCommand { Arguments = ["sh", "-c", "i=0; while [ $i -lt 200 ]; do echo out $i; echo error $i >&2; i=$((i + 1)); done; exit 7"], IsErrorOutput = true });

        Assert.That(Encoding.UTF8.GetString(result.Output), Is.EqualTo(expected));
        Assert.That((result.End, result.Errors), Is.EqualTo((new CommandEnd(CommandEndKind.Exited, 7), "")));
    }

    [TestCase("0077", UnixFileMode.GroupRead | UnixFileMode.GroupWrite | UnixFileMode.GroupExecute | UnixFileMode.OtherRead | UnixFileMode.OtherWrite | UnixFileMode.OtherExecute)]
    [TestCase("0000", UnixFileMode.None)]
    public void Run_Umask_IsTheCommands(string expected, UnixFileMode umask)
    {
        Result result = Run(new GuestCommand { Arguments = ["sh", "-c", "umask"], Umask = umask });

        Assert.That(Encoding.UTF8.GetString(result.Output), Is.EqualTo($"{expected}\n"));
    }

    [Test]
    public void Run_UserThatIsNotThere_IsTold()
    {
        Result result = Run(new GuestCommand { Arguments = ["true"], User = "nobody-of-that-name" });

        Assert.That(result.End.Kind, Is.EqualTo(CommandEndKind.NotPrepared));
        Assert.That(result.End.What, Does.Contain("nobody-of-that-name"));
    }

    [Test]
    public void Run_ManyLongArguments_ArriveWhole()
    {
        string[] words = [.. Enumerable.Range(0, 1000).Select(i => new string((char)('a' + (i % 26)), 1000))];

        Result result = Run(["sh", "-c", "printf %s \"$@\" | wc -c", "sh", .. words]);

        Assert.That(Encoding.UTF8.GetString(result.Output).Trim(), Is.EqualTo("1000000"));
    }

    [Test]
    public void Run_ProcessLeftRunning_IsEndedAndHoldsNothing()
    {
        Result result = Run(["sh", "-c", "sleep 1000 & echo $!"]);

        Assert.That(result.End, Is.EqualTo(new CommandEnd(CommandEndKind.Exited)));
        Eventually.True(() => !IsRunning(Encoding.UTF8.GetString(result.Output).Trim()), () => "the process is left");
    }

    // The agent is held while the command reads a part of a full pipe and ends: the pipe has room then, and no reader.
    [Test]
    public void Run_CommandThatReadsAPartOfItsInput_ExitsWithItsStatus()
    {
        Result result = Run(
            ["sh", "-c", "sleep 1; kill -STOP $PPID; head -c 20000 > /dev/null; exec 0<&-; (sleep 0.3; kill -CONT $PPID) & exit 3"], new byte[3_000_000]);

        Assert.That(result.End, Is.EqualTo(new CommandEnd(CommandEndKind.Exited, 3)));
    }

    [Test]
    public void Run_ProcessLeftRunningInASessionOfItsOwn_IsEndedAndHoldsNothing()
    {
        Result result = Run(["sh", "-c", "{ setsid sh -c 'echo $$; exec sleep 1000' & } | head -n 1"]);

        Assert.That(result.End, Is.EqualTo(new CommandEnd(CommandEndKind.Exited)));
        Eventually.True(() => !IsRunning(Encoding.UTF8.GetString(result.Output).Trim()), () => "the process is left");
    }

    // Each generation becomes the agent's child when the one before has ended. None holds the command's output.
    [Test]
    public void Run_ProcessesLeftRunningInManyGenerations_AreEnded()
    {
        const int count = 6;
        File.WriteAllText(_file, """
            if test $1 -gt 1; then setsid sh "$0" $(($1 - 1)) > /dev/null 2>&1 <&- & fi
            echo $$ >> "$0.ids"; exec sleep 1000
            """);
        try
        {
            Result result = Run(["sh", "-c", $"setsid sh \"$0\" {count} > /dev/null 2>&1 <&- & until test \"$(wc -l < \"$0.ids\")\" = {count}; do sleep 0.05; done 2> /dev/null", _file]);

            Assert.That(result.End, Is.EqualTo(new CommandEnd(CommandEndKind.Exited)));
            Assert.That(File.ReadAllLines($"{_file}.ids").Where(IsRunning), Is.Empty, "processes are left");
        }
        finally
        {
            File.Delete($"{_file}.ids");
        }
    }

    // Process 1 switches the machine off as soon as the session has ended.
    [Test]
    public void Exit_Agent_WaitsUntilTheHostEndsTheConnection()
    {
        using var agent = new AgentProcess();
        using var connection = new AgentConnection(agent.Socket);
        connection.Send(AgentFrameType.Start, AgentStream.Input, new GuestCommand { Arguments = ["true"], Directory = "/" }.Encode(0, 0));
        AgentFrame head = default;
        while (head.Type != AgentFrameType.Exit)
        {
            Assert.That(Poll.Wait([new PollEntry(agent.Socket, PollEvents.Readable)], 10_000), Is.EqualTo(1));
            Assert.That(connection.Receive(), Is.True);
            while (connection.TryTake(out AgentFrame next, out _))
                head = next;
        }

        Assert.That(agent.HasEnded(500), Is.False);
        connection.Dispose();
        agent.WaitForEnd();
    }

    [TestCase("abc")]
    [TestCase("abc\n")]
    [TestCase("")]
    public void Run_WithTerminalAndInputThatEnds_CommandReadsItAll(string input)
    {
        Result result = Run(new GuestCommand { Arguments = ["sh", "-c", "stty -echo; echo ready; exec cat"], HasTerminal = true, HasTerminalError = true },
            Encoding.UTF8.GetBytes(input));

        Assert.That(result.End, Is.EqualTo(new CommandEnd(CommandEndKind.Exited)));
        Assert.That(Encoding.UTF8.GetString(result.Output), Does.EndWith(input.ReplaceLineEndings("\r\n")));
    }

    [Test]
    public void Run_TerminalThatTakesNothing_DoesNotHoldTheTimeLimit()
    {
        using var agent = new AgentProcess();
        using var terminal = new PseudoTerminal();
        using var session = new AgentSession(new GuestCommand { Arguments = ["yes"] }, new HostStreams(null, terminal.Terminal, null, false, false),
            TimeSpan.FromSeconds(1));
        Task<CommandEnd> end = Task.Run(() => session.Run(agent.Socket));
        bool hasEnded = end.Wait(10_000);
        byte[] buffer = new byte[65536];
        while (!end.Wait(100))
            terminal.User.TryRead(buffer);

        Assert.That(hasEnded, Is.True, "it waits for the terminal");
        Assert.That(end.Result, Is.EqualTo(new CommandEnd(CommandEndKind.TimedOut)));
    }

    [TestCase(Terminate)]
    [TestCase(Interrupt)]
    [TestCase(Hangup)]
    public void Signal_Command_DiesOfIt(int number)
    {
        Result result = Run(new GuestCommand { Arguments = ["sh", "-c", "echo ready; exec sleep 1000"] }, whenReady: session => session.Signal(number));

        Assert.That(result.End, Is.EqualTo(new CommandEnd(CommandEndKind.Killed, number)));
    }

    // The test has the output open in place of a process that cannot be killed. What comes afterwards, such as writing file systems out, may take longer than a host waits.
    [Test]
    public void Signal_WhileOutputIsAwaited_IsAnsweredAfterwards()
    {
        using var agent = new AgentProcess();
        using var connection = new AgentConnection(agent.Socket);
        var frames = new List<AgentFrameType>();
        string output = "";
        Next(AgentFrameType.Hello);
        connection.Send(AgentFrameType.Start, AgentStream.Input, new GuestCommand { Arguments = ["sh", "-c", "echo $$; read -r line"] }.Encode(0, 0));
        while (!output.EndsWith('\n'))
            Next(AgentFrameType.Data);
        string id = output.Trim();
        using (FileDescriptor held = FileDescriptor.Open($"/proc/{id}/fd/1", OpenMode.WriteNonBlocking))
        {
            connection.Send(AgentFrameType.End, AgentStream.Input, []);
            Eventually.True(() => !Directory.Exists($"/proc/{id}"), () => "the command does not end");
            connection.Send(AgentFrameType.Signal, AgentStream.Input, Terminate);
            connection.Send(AgentFrameType.Signal, AgentStream.Input, Interrupt);
            Thread.Sleep(200);
            frames.Clear();
        }
        Next(AgentFrameType.Exit);
        Assert.That(frames.Where(type => type is AgentFrameType.Signalled or AgentFrameType.Exit), Is.EqualTo(new[] { AgentFrameType.Signalled, AgentFrameType.Signalled, AgentFrameType.Exit }));

        // Takes frames until one of that type.
        void Next(AgentFrameType wanted)
        {
            while (true)
            {
                while (connection.TryTake(out AgentFrame head, out ReadOnlySpan<byte> data))
                {
                    frames.Add(head.Type);
                    if (head.Type == AgentFrameType.Data)
                        output += Encoding.UTF8.GetString(data);
                    if (head.Type == wanted)
                        return;
                }
                Assert.That(Poll.Wait([new PollEntry(connection.Descriptor, PollEvents.Readable)], 20_000), Is.EqualTo(1), $"no {wanted} comes");
                Assert.That(connection.Receive(), $"the agent has ended before {wanted}");
            }
        }
    }

    [Test]
    public void Signal_BeforeTheCommandRuns_IsNotTaken()
    {
        using var session = new AgentSession(new GuestCommand(), new HostStreams(null, null, null, hasTerminal: false, closesOutput: false), null);
        Assert.That(session.Signal(Terminate), Is.False);
    }

    [Test]
    public void Run_OutputThatNobodyReadsAnyMore_EndsTheCommandBySigpipe()
    {
        using var agent = new AgentProcess();
        using var output = new Pipe();
        using var session = new AgentSession(new GuestCommand { Arguments = ["yes"] }, new HostStreams(null, output.Writer, null, false, false), null);
        Task<CommandEnd> end = Task.Run(() => session.Run(agent.Socket));
        byte[] buffer = new byte[100];
        Assert.That(output.Reader.TryRead(buffer), Is.EqualTo(buffer.Length));
        output.Reader.Dispose();

        Assert.That(end.Wait(10_000), Is.True, "the command goes on");
        Assert.That(end.Result, Is.EqualTo(new CommandEnd(CommandEndKind.Killed, PipeSignal)));
    }

    [Test]
    public void Run_TerminalWhoseReaderIsGone_IsHungUp()
    {
        using var agent = new AgentProcess();
        using var output = new Pipe();
        var command = new GuestCommand { Arguments = ["yes"], HasTerminal = true, HasTerminalError = true };
        using var session = new AgentSession(command, new HostStreams(null, output.Writer, null, hasTerminal: true, closesOutput: false), null);
        Task<CommandEnd> end = Task.Run(() => session.Run(agent.Socket));
        byte[] buffer = new byte[100];
        Assert.That(output.Reader.TryRead(buffer), Is.EqualTo(buffer.Length));
        output.Reader.Dispose();

        Assert.That(end.Wait(10_000), Is.True, "the command goes on");
        Assert.That(end.Result.Kind, Is.EqualTo(CommandEndKind.Killed));
    }

    [TestCase("echo x", true)]
    [TestCase("yes", true)]     // goes on until it is told
    [TestCase("echo x >&2", false)]
    public void Run_OutputThatTheHostsFileDoesNotTake_IsTold(string script, bool isOutput)
    {
        using var agent = new AgentProcess();
        using FileDescriptor full = FileDescriptor.Open("/dev/full", OpenMode.ReadWrite);
        var streams = new HostStreams(null, isOutput ? full : null, isOutput ? null : full, false, false);
        using var session = new AgentSession(new GuestCommand { Arguments = ["sh", "-c", script] }, streams, null);
        Task<CommandEnd> end = Task.Run(() => session.Run(agent.Socket));

        Assert.That(end.Wait(10_000), Is.True, "the command goes on");
        Assert.That(end.Result, Is.EqualTo(new CommandEnd(CommandEndKind.OutputLost, Errnos.Enospc, isOutput ? "standard output" : "standard error")));
    }

    // Each is more than a window.
    [TestCase("seq 200000 && exit 3")]
    [TestCase("seq 200000 >&2 && exit 3")]
    public void Run_OutputClosedFromTheStart_DoesNotEndTheCommandThatWrites(string script)
    {
        using var agent = new AgentProcess();
        using var session = new AgentSession(new GuestCommand { Arguments = ["sh", "-c", script] }, new HostStreams(null, null, null, false, false), null);
        Task<CommandEnd> end = Task.Run(() => session.Run(agent.Socket));

        Assert.That(end.Wait(10_000), Is.True, "the command waits");
        Assert.That(end.Result, Is.EqualTo(new CommandEnd(CommandEndKind.Exited, 3)));
    }

    [Test]
    public void Run_SlowReader_HoldsTheCommandUp()
    {
        using var agent = new AgentProcess();
        using var output = new Pipe();
        string progress = Path.GetTempFileName();
        try
        {
            // Each block that was written is counted in a file.
            var command = new GuestCommand
            {
                Arguments = ["sh", "-c", "for i in $(seq 100); do head -c 65536 /dev/zero; echo $i > \"$0\"; done", progress],
            };
            using var session = new AgentSession(command, new HostStreams(null, output.Writer, null, false, false), null);
            Task<CommandEnd> end = Task.Run(() => session.Run(agent.Socket));
            // Two pipes of 64 KiB and the window of 256 KiB take six blocks, and the shell has begun with the next.
            Eventually.True(() => File.ReadAllText(progress).Trim() == "6", () => $"written are {File.ReadAllText(progress)}");
            Thread.Sleep(500);
            Assert.That(File.ReadAllText(progress).Trim(), Is.EqualTo("6"), "it goes on although nobody reads");

            using var reader = new FileStream(new Microsoft.Win32.SafeHandles.SafeFileHandle(output.Reader.Number, ownsHandle: false), FileAccess.Read);
            byte[] all = new byte[6_553_600];
            reader.ReadExactly(all);
            Assert.That(end.Wait(10_000), Is.True);
            Assert.That(end.Result.Value, Is.Zero);
        }
        finally
        {
            File.Delete(progress);
        }
    }

    [Test]
    public void Run_LongerThanItMay_TimesOut()
    {
        using var agent = new AgentProcess();
        using var session = new AgentSession(
            new GuestCommand { Arguments = ["sleep", "1000"] }, new HostStreams(null, null, null, false, false), TimeSpan.FromMilliseconds(300));

        Assert.That(session.Run(agent.Socket), Is.EqualTo(new CommandEnd(CommandEndKind.TimedOut)));
    }

    [Test]
    public void Run_HostThatLeaves_EndsTheCommand()
    {
        using var agent = new AgentProcess();
        var output = new Pipe();
        using var session = new AgentSession(new GuestCommand { Arguments = ["sh", "-c", "echo $$; exec sleep 1000"] },
            new HostStreams(null, output.Writer, null, false, false), null);
        Task<CommandEnd> end = Task.Run(() => session.Run(agent.Socket));
        byte[] buffer = new byte[20];
        string id = Encoding.UTF8.GetString(buffer, 0, output.Reader.TryRead(buffer)).Trim();
        Assert.That(IsRunning(id), Is.True);
        session.Leave();
        Assert.That(end.Wait(10_000), Is.True);

        agent.WaitForEnd();
        Eventually.True(() => !IsRunning(id), () => "the command goes on");
        output.Dispose();
    }

    [Test]
    public void Run_WithTerminal_CommandHasOneOfItsSize()
    {
        using var terminal = new PseudoTerminal();
        terminal.SetSize(40, 100);
        string screen = RunOnTerminal(terminal, "tty > /dev/null && stty size", out CommandEnd end);

        Assert.That(end, Is.EqualTo(new CommandEnd(CommandEndKind.Exited)));
        Assert.That(screen, Is.EqualTo("40 100\r\n"));
    }

    [Test]
    public void Run_WithTerminal_ItsEraseKeyTakesWholeCharacters()
    {
        using var terminal = new PseudoTerminal();
        string screen = RunOnTerminal(terminal, "stty -a", out _);

        Assert.That(screen, Does.Match("(^|[ \n])iutf8"));
    }

    [Test]
    public void Resize_WhileTheCommandRuns_ItIsTold()
    {
        using var terminal = new PseudoTerminal();
        string screen = RunOnTerminal(terminal, "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done", out _, session =>
        {
            terminal.SetSize(33, 77);
            session.WindowChanged();
        });

        Assert.That(screen, Does.EndWith("33 77\r\n"));
    }

    // The kernel tells nobody of a size that is the same.
    [Test]
    public void WindowChanged_SizeIsTheSame_CommandIsToldAllTheSame()
    {
        using var terminal = new PseudoTerminal();
        terminal.SetSize(40, 100);
        string screen = RunOnTerminal(terminal, "trap 'echo told; exit 5' WINCH; echo ready; for i in $(seq 200); do sleep 0.05; done", out CommandEnd end, session => session.WindowChanged());

        Assert.That(screen, Does.EndWith("told\r\n"));
        Assert.That(end, Is.EqualTo(new CommandEnd(CommandEndKind.Exited, 5)));
    }

    [Test]
    public void WindowChanged_CommandWithoutATerminal_GetsTheSignal()
    {
        Result result = Run(new GuestCommand { Arguments = ["sh", "-c", "trap 'exit 5' WINCH; echo ready; for i in $(seq 200); do sleep 0.05; done"] }, whenReady: session => session.WindowChanged());

        Assert.That(result.End, Is.EqualTo(new CommandEnd(CommandEndKind.Exited, 5)));
    }

    [Test]
    public void Run_WithTerminal_InterruptKeyGoesToTheCommand()
    {
        using var terminal = new PseudoTerminal();
        string before = terminal.Settings();
        RunOnTerminal(terminal, "echo ready; exec sleep 1000", out CommandEnd end, _ => terminal.User.WriteAll("\x03"u8, "terminal"));

        Assert.That(end, Is.EqualTo(new CommandEnd(CommandEndKind.Killed, Interrupt)));
        Assert.That(terminal.Settings(), Is.EqualTo(before), "the terminal's settings");
    }

    [Test]
    public void Run_WithTerminal_EscapeKeyThreeTimesLeaves()
    {
        using var terminal = new PseudoTerminal();
        RunOnTerminal(terminal, "stty raw -echo; echo ready; exec sleep 1000", out CommandEnd end, _ => terminal.User.WriteAll("\x1d\x1d\x1d"u8, "terminal"));

        Assert.That(end, Is.EqualTo(new CommandEnd(CommandEndKind.Left)));
    }

    private static string RunOnTerminal(PseudoTerminal terminal, string script, out CommandEnd end, Action<AgentSession>? whenReady = null)
    {
        using var agent = new AgentProcess();
        using var output = new Pipe();
        var command = new GuestCommand { Arguments = ["sh", "-c", script], HasTerminal = true, HasTerminalError = true };
        using var session = new AgentSession(command, new HostStreams(terminal.Terminal, output.Writer, null, hasTerminal: true, closesOutput: false), null);
        Task<byte[]> read = ReadAll(output.Reader, text =>
        {
            if (text.Contains("ready", StringComparison.Ordinal))
                Interlocked.Exchange(ref whenReady, null)?.Invoke(session);
        });
        Task<CommandEnd> run = Task.Run(() => session.Run(agent.Socket));
        Assert.That(run.Wait(20_000), Is.True, "the command does not end");
        session.Dispose();      // it has the pipe open, too
        output.Writer.Dispose();
        end = run.Result;
        return Encoding.UTF8.GetString(read.Result);
    }

    private static Result Run(IReadOnlyList<string> arguments, byte[]? input = null) => Run(new GuestCommand { Arguments = arguments }, input);

    private static Result Run(GuestCommand command, byte[]? input = null, Action<AgentSession>? whenReady = null)
    {
        using var agent = new AgentProcess();
        using Pipe inputs = new(), outputs = new(), errors = new();
        using var session = new AgentSession(command, new HostStreams(inputs.Reader, outputs.Writer, errors.Writer, false, false), null);
        Task write = Task.Run(() =>
        {
            try
            {
                inputs.Writer.WriteAll(input ?? [], "the input");
            }
            catch (ErrnoException)
            {
                // Nobody reads it, which is what some tests are about.
            }
            inputs.Writer.Dispose();
        });
        Task<byte[]> output = ReadAll(outputs.Reader, text =>
        {
            if (whenReady is not null && text.StartsWith("ready", StringComparison.Ordinal))
                Interlocked.Exchange(ref whenReady, null)?.Invoke(session);
        });
        Task<byte[]> error = ReadAll(errors.Reader, _ => { });
        Task<CommandEnd> run = Task.Run(() => session.Run(agent.Socket));
        Assert.That(run.Wait(20_000), Is.True, "the command does not end");
        session.Dispose();      // it has the pipes open, too
        inputs.Reader.Dispose();
        write.Wait();
        outputs.Writer.Dispose();
        errors.Writer.Dispose();
        agent.WaitForEnd();
        return new Result(run.Result, output.Result, Encoding.UTF8.GetString(error.Result));
    }

    private static Task<byte[]> ReadAll(FileDescriptor descriptor, Action<string> seen) => Task.Run(() =>
    {
        using var all = new MemoryStream();
        byte[] buffer = new byte[65536];
        int count;
        while ((count = descriptor.TryRead(buffer)) > 0)
        {
            all.Write(buffer, 0, count);
            if (all.Length < buffer.Length)
                seen(Encoding.UTF8.GetString(all.ToArray()));
        }
        return all.ToArray();
    });

    private static bool IsRunning(string id)
    {
        try
        {
            return !File.ReadAllText($"/proc/{id}/stat").Contains(") Z ", StringComparison.Ordinal);
        }
        catch (IOException)
        {
            return false;
        }
    }

    private sealed record Result(CommandEnd End, byte[] Output, string Errors);
}
