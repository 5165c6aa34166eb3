using System.Diagnostics;
using NUnit.Framework;
using Vmm.Devices.Spawning;
using Vmm.Tests.Integration;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Devices.Spawning;

/// <summary>A spawner and the process that it works for, which here are two threads of one.</summary>
public sealed class SpawnerTests
{
    private const int Patience = 30_000;

    private string _directory = "";
    private UnixSocket _ours = null!;
    private EventFd _ended = null!;     // the other process's end, where a test has it
    private Thread _server = null!;

    [SetUp]
    public void Start()
    {
        _directory = Directory.CreateTempSubdirectory("vmm-test-").FullName;
        _ended = new EventFd();
        (_ours, UnixSocket theirs) = UnixSocket.Pair();
        _server = new Thread(() =>
        {
            using var server = new SpawnerServer(theirs, _ended);
            server.Run();
        });
        _server.Start();
    }

    [TearDown]
    public void Stop()
    {
        _ours.Dispose();
        Assert.That(_server.Join(Patience), "it ends with the other side");
        _ended.Dispose();
        Directory.Delete(_directory, recursive: true);
    }

    private static SpawnerProgram Shell(string script, string? socket = null) => new("/bin/sh", ["-c", script, "sh", "an argument"], IsOwn: false, socket);

    private string InDirectory(string name) => Path.Combine(_directory, name);

    [Test]
    public void Start_Program_RunsWithItsArgumentsAndIsAskedForItsEnd()
    {
        using var spawner = new RemoteSpawner(_ours);
        SpawnerSlot slot = spawner.Add(Shell("echo \"$1\"; test -S /dev/fd/3 && exit 7"));
        spawner.Close();
        using IStartedProcess process = spawner.Start(slot);
        Assert.That(process.Id, Is.Positive);
        Assert.That(process.WaitForEnd(Patience));
        Assert.That(process.End, Is.EqualTo("status 7"));
        byte[] output = new byte[100];
        int count = process.Output.TryRead(output);
        Assert.That(System.Text.Encoding.ASCII.GetString(output, 0, count), Is.EqualTo("an argument\n"));
    }

    [Test]
    public void Start_ArgumentsOfTheFirstStart_AreNotThereInTheSecond([Values] bool isRemote)
    {
        using ISpawner spawner = isRemote ? new RemoteSpawner(_ours) : new LocalSpawner();
        SpawnerSlot slot = spawner.Add(new SpawnerProgram("/bin/sh", ["-c", "exit $#", "sh", "always"], IsOwn: false, null) { FirstArguments = ["once", ""] });
        string[] ends = [.. Enumerable.Range(0, 3).Select(_ =>
        {
            using IStartedProcess process = spawner.Start(slot);
            Assert.That(process.WaitForEnd(Patience));
            return process.End!;
        })];
        Assert.That(ends, Is.EqualTo(new[] { "status 3", "status 1", "status 1" }));
    }

    [Test]
    public void Start_ProgramThatIsMissing_SaysSo()
    {
        using var spawner = new RemoteSpawner(_ours);
        SpawnerSlot slot = spawner.Add(new SpawnerProgram("/nonexistent", [], false, null));
        ErrnoException error = Assert.Throws<ErrnoException>(() => spawner.Start(slot))!;
        Assert.That((error.Message, error.Errno), Is.EqualTo(("cannot start /nonexistent: No such file or directory (errno 2)", Errnos.Enoent)));
        Assert.That(() => spawner.Start(slot), Throws.InstanceOf<ErrnoException>(), "it goes on");
    }

    [Test]
    public void Kill_ProgramThatRuns_EndsItAndAnotherOneIsStarted()
    {
        using var spawner = new RemoteSpawner(_ours);
        SpawnerSlot slot = spawner.Add(Shell("exec sleep 600"));
        using IStartedProcess first = spawner.Start(slot);
        Assert.That(first.End, Is.Null);
        Assert.That(first.WaitForEnd(0), Is.False);
        Assert.That(first.Kill(Patience));
        Assert.That(first.End, Is.EqualTo("signal 9"));
        using IStartedProcess second = spawner.Start(slot);
        Assert.That(second.Id, Is.Not.EqualTo(first.Id));
        // One at a time: whoever starts another one without end gets one.
        using IStartedProcess third = spawner.Start(slot);
        Assert.That(second.Ended.IsClosed || Poll.Wait([new PollEntry(second.Ended, PollEvents.Readable)], Patience) == 1);
        Assert.That(third.End, Is.Null);
    }

    [TestCase(false, 0.0, 1.9)]
    [TestCase(true, 1.9, 30.0)]
    public void Dispose_ProgramThatWaitsForAConnection_HasTimeToEndOnlyIfItWasConnectedTo(bool isReached, double least, double most)
    {
        using var spawner = new LocalSpawner();
        SpawnerSlot slot = spawner.Add(Shell("exec sleep 600"));
        spawner.Start(slot);
        if (isReached)
        {
            Assert.That(spawner.TryConnect(slot.SocketPath, out UnixSocket? socket), Is.Zero);
            socket!.Dispose();
        }
        long start = Stopwatch.GetTimestamp();
        spawner.Dispose();
        Assert.That(Stopwatch.GetElapsedTime(start).TotalSeconds, Is.InRange(least, most));
    }

    [Test]
    public void Connect_SocketsThatWereSaid_AndNoOthers()
    {
        string allowed = InDirectory("allowed"), other = InDirectory("other");
        using var first = UnixListener.Listen(allowed);
        using var second = UnixListener.Listen(other);
        using var spawner = new RemoteSpawner(_ours);
        spawner.AllowConnection(allowed);
        spawner.AllowConnection(InDirectory("nobody"));
        spawner.Close();
        Assert.That(spawner.TryConnect(allowed, out UnixSocket? socket), Is.Zero);
        using (socket)
        using (UnixSocket accepted = first.TryAccept()!)
        {
            Assert.That(socket!.TrySend("x"u8, []), Is.EqualTo(1));
            byte[] received = new byte[1];
            Assert.That(accepted.TryRead(received), Is.EqualTo(1));
        }
        Assert.That(spawner.TryConnect(InDirectory("nobody"), out _), Is.EqualTo(Errnos.Enoent));
        Assert.That(spawner.TryConnect(other, out _), Is.EqualTo(Errnos.Eperm));
        Assert.That(second.TryAccept(), Is.Null);
    }

    [Test]
    public void Close_FurtherProgramsAndPaths_AreRefused()
    {
        using var spawner = new RemoteSpawner(_ours);
        spawner.Close();
        Assert.That(() => spawner.Add(Shell("true")), Refused());
        Assert.That(() => spawner.AllowConnection(InDirectory("socket")), Refused());
        Assert.That(() => spawner.RemoveAtEnd(InDirectory("socket")), Refused());
    }

    // What a process can send that was taken over: numbers of nothing, requests that there are none of, descriptors, half a message.
    [Test]
    public void Requests_OfNothing_AreRefused()
    {
        using var channel = new SpawnerChannel(_ours);
        int sequence = 0;
        foreach (int request in Enumerable.Range(-1, 12).Where(request => request is not ((int)SpawnerRequest.Close or (int)SpawnerRequest.AllowConnection or (int)SpawnerRequest.RemoveAtEnd)))
        {
            foreach (int number in (int[])[-1, 0, 1, int.MaxValue, int.MinValue])
            {
                channel.Send(++sequence, request, number, "a");
                Assert.That(channel.TryReceive(out SpawnerMessage answer, Patience), $"request {request} for {number}");
                Assert.That((answer.Sequence, answer.Kind, answer.Descriptors.Count), Is.EqualTo((sequence, Errnos.Eperm, 0)), $"request {request} for {number}");
            }
        }
        using var uninvited = new EventFd();
        channel.Send(++sequence, (int)SpawnerRequest.Start, 0, "", uninvited);
        Assert.That(channel.TryReceive(out _, Patience));
        Assert.That(_ours.TrySend([1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 127], []), Is.EqualTo(16), "2 GiB of text");
        Assert.That(channel.TryReceive(out _, Patience), Is.False, "and it leaves");
        Assert.That(channel.HasEnded);
    }

    [Test]
    public void End_OfTheOtherSide_EndsProgramsAndRemovesSockets()
    {
        string ours = InDirectory("ours"), replaced = InDirectory("replaced"), besides = InDirectory("besides");
        string directory = Directory.CreateDirectory(InDirectory("directory")).FullName, another = Directory.CreateDirectory(InDirectory("another")).FullName;
        using var listener = UnixListener.Listen(ours);
        listener.LeaveFile();
        using (UnixListener before = UnixListener.Listen(replaced))
            before.LeaveFile();
        var spawner = new RemoteSpawner(_ours);
        SpawnerSlot slot = spawner.Add(Shell("exec sleep 600", besides));
        using IStartedProcess process = spawner.Start(slot);
        using (UnixListener stale = UnixListener.Listen(besides))
            stale.LeaveFile();
        spawner.RemoveAtEnd(ours);
        spawner.RemoveAtEnd(replaced);
        File.Delete(replaced);
        using UnixListener other = UnixListener.Listen(replaced);
        listener.Dispose();
        spawner.RemoveAtEnd(directory);
        spawner.RemoveAtEnd(another);
        File.WriteAllText(Path.Combine(directory, "file"), "");
        Directory.Delete(another);
        Directory.CreateDirectory(another);

        spawner.Dispose();
        Assert.That(_server.Join(Patience));
        Assert.That(Poll.Wait([new PollEntry(process.Ended, PollEvents.Readable)], 0), Is.EqualTo(1), "the program");
        Assert.That(Directory.Exists(Path.GetDirectoryName(slot.SocketPath)), Is.False, "its directory");
        Assert.That(File.Exists(ours), Is.False);
        Assert.That(File.Exists(besides), Is.False);
        Assert.That(File.Exists(replaced), "another's socket of that name");
        Assert.That(Directory.Exists(directory), Is.False);
        Assert.That(Directory.Exists(another), "another directory of that name");
    }

    // A process that was taken over keeps its end of the connection open by sending it, so that it is in the connection itself.
    [Test]
    public void End_OfOneThatSentItsOwnEnd_IsSeen()
    {
        Assert.That(_ours.TrySend([9, 0], [_ours]), Is.EqualTo(2), "a part of a message");
        _ours.Dispose();
        Assert.That(_server.Join(Patience));
    }

    // A path need not be UTF-8.
    [Test]
    public void Text_OfBytesThatAreNotUtf8_ArrivesAsItIs()
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using SpawnerChannel sender = new(ours), receiver = new(theirs);
        sender.Send(1, (int)SpawnerRequest.AllowConnection, 0, "/a\uDCFF\uDCFE/\u00e9");

        Assert.That(receiver.TryReceive(out SpawnerMessage message, Patience));
        Assert.That(message.Text, Is.EqualTo("/a\uDCFF\uDCFE/\u00e9"));
    }

    // Somebody else has the connection then.
    [Test]
    public void End_OfTheOtherProcess_IsSeenThoughTheConnectionStays()
    {
        using var channel = new SpawnerChannel(_ours);
        channel.Send(1, (int)SpawnerRequest.Close, 0);
        Assert.That(channel.TryReceive(out _, Patience));
        _ended.Signal();
        Assert.That(_server.Join(Patience));
    }

    // It takes none of its answers, so that the server waits until it can send more.
    [Test]
    public void End_OfTheOtherProcessThatReadsNothing_IsSeen()
    {
        var stopwatch = Stopwatch.StartNew();
        while (stopwatch.ElapsedMilliseconds < Patience && _ours.TrySend([1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], []) > 0)
        {
        }
        _ended.Signal();
        Assert.That(_server.Join(Patience));
    }

    [Test]
    public void Start_PlaceThatWasRemoved_IsRefused()
    {
        using var spawner = new RemoteSpawner(_ours);
        SpawnerSlot slot = spawner.Add(Shell("exec sleep 600"));
        spawner.Remove(slot);
        Assert.That(() => spawner.Start(slot), Throws.InstanceOf<ErrnoException>().With.Message.Contains("its place was removed"));
    }

    [Test]
    public void Answer_ThatComesTooLate_IsDroppedAndTheNextIsTaken()
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using var server = new SpawnerChannel(theirs);
        using var spawner = new RemoteSpawner(ours, patience: 100);
        server.Send(1, 0, 7);
        spawner.AllowConnection("a");
        Assert.That(() => spawner.TryConnect("a", out _), NotAnswered());
        (FileDescriptor reading, FileDescriptor writing) = PipePair.Create();
        (UnixSocket first, UnixSocket second) = UnixSocket.Pair();
        using (reading)
        using (second)
        {
            using (writing)
                server.Send(2, 0, 0, "", writing);
            using (first)
                server.Send(3, 0, 0, "", first);
            Assert.That(spawner.TryConnect("a", out UnixSocket? socket), Is.Zero);
            using (socket)
            {
                Assert.That(socket!.TrySend("x"u8, []), Is.EqualTo(1));
                Assert.That(second.TryRead(new byte[1]), Is.EqualTo(1), "it is that of the second answer");
            }
            Assert.That(reading.TryRead(new byte[1]), Is.Zero, "what came with the first is closed");
        }
    }

    // Each of them starts a program, for example, once it is read.
    [Test]
    public void Requests_WhileAnAnswerIsOwed_AreNotMade()
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using var server = new SpawnerChannel(theirs);
        using var spawner = new RemoteSpawner(ours, patience: 20);
        for (int i = 0; i < 10; i++)
            Assert.That(() => spawner.Close(), NotAnswered());
        Assert.That(server.TryReceive(out SpawnerMessage request, 0));
        Assert.That(request.Sequence, Is.EqualTo(1));
        Assert.That(server.TryReceive(out _, 0), Is.False);
        server.Send(1, 0, 0);
        server.Send(2, 0, 0);
        Assert.That(() => spawner.Close(), Throws.Nothing);
    }

    [Test]
    public void Answer_WithAnotherNumber_IsAnErrorAndClosesItsDescriptors()
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using var server = new SpawnerChannel(theirs);
        using var spawner = new RemoteSpawner(ours, patience: 20);
        (FileDescriptor reading, FileDescriptor writing) = PipePair.Create();
        using (reading)
        {
            using (writing)
                server.Send(7, 0, 0, "", writing);
            Assert.That(() => spawner.Close(), Fails(Errnos.Eproto));
            Assert.That(reading.TryRead(new byte[1]), Is.Zero);
        }
    }

    [Test]
    public void Answer_HalfOfOne_IsTheEnd()
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using (theirs)
        using (var spawner = new RemoteSpawner(ours, patience: 20))
        {
            Assert.That(theirs.TrySend([1, 0, 0, 0], []), Is.EqualTo(4));
            Assert.That(() => spawner.Close(), Gone());
            Assert.That(() => spawner.Close(), Gone());
        }
    }

    [Test]
    public void Answer_WithDescriptorsThatDoNotBelong_IsAnErrorAndClosesThem()
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using var server = new SpawnerChannel(theirs);
        using var spawner = new RemoteSpawner(ours);
        server.Send(1, 0, 0);
        spawner.AllowConnection("a");
        (FileDescriptor reading, FileDescriptor writing) = PipePair.Create();
        using (reading)
        {
            using (writing)
            {
                server.Send(2, 0, 0, "", writing);
                server.Send(3, 0, 0, "", writing, writing);
                server.Send(4, 0, 0, "", writing);
            }
            Assert.That(spawner.TryConnect("a", out _), Is.EqualTo(Errnos.Einval), "it is no socket");
            Assert.That(spawner.TryConnect("a", out _), Is.EqualTo(Errnos.Emfile), "two");
            Assert.That(() => spawner.RemoveAtEnd("a"), Throws.InstanceOf<ErrnoException>(), "one, where none was asked for");
            Assert.That(reading.TryRead(new byte[1]), Is.Zero, "none of them is open");
        }
    }

    // What ends all processes of a service at once must not end it before the VMM.
    [TestCase(1)]       // SIGHUP
    [TestCase(2)]       // SIGINT
    [TestCase(15)]      // SIGTERM
    public void Process_SignalThatEndsOthers_StaysUntilItsConnectionEnds(int signal)
    {
        if (!VmmProcess.IsNative)
            Assert.Ignore("dotnet is no path: set VMM_BINARY");
        using var spawner = new RemoteSpawner(VmmProcess.Command[0], ["spawner"]);
        SpawnerSlot slot = spawner.Add(Shell("exec sleep 600"));
        Assert.That(Tmds.Linux.LibC.kill(spawner.ProcessId, signal), Is.Zero);
        using (IStartedProcess process = spawner.Start(slot))
            Assert.That(process.End, Is.Null);
        string directory = Path.GetDirectoryName(slot.SocketPath)!;
        Assert.That(Directory.Exists(directory));
        spawner.Dispose();
        Assert.That(Directory.Exists(directory), Is.False);
    }

    [Test]
    public void Spawner_ThatIsGone_IsAnError()
    {
        using var spawner = new RemoteSpawner(_ours);
        SpawnerSlot slot = spawner.Add(Shell("exit 0"));
        using (IStartedProcess process = spawner.Start(slot))
        {
            _ours.Shutdown();
            Assert.That(_server.Join(Patience));
            Assert.That(process.WaitForEnd(Patience), "the kernel tells its end");
            Assert.That(process.End, Is.EqualTo("a status that is not known"));
        }
        Assert.That(() => spawner.Start(slot), Gone());
        Assert.That(() => spawner.TryConnect(slot.SocketPath, out _), Gone(), "it is told from a socket on which nobody listens");
    }

    private static NUnit.Framework.Constraints.EqualNumericConstraint<int> Refused() => Fails(Errnos.Eperm);

    private static NUnit.Framework.Constraints.EqualNumericConstraint<int> NotAnswered() => Fails(Errnos.Etimedout);

    private static NUnit.Framework.Constraints.EqualNumericConstraint<int> Gone() => Fails(Errnos.Epipe);

    private static NUnit.Framework.Constraints.EqualNumericConstraint<int> Fails(int errno) =>
        Throws.InstanceOf<ErrnoException>().With.Property(nameof(ErrnoException.Errno)).EqualTo(errno);
}
