using System.Runtime.InteropServices;
using NUnit.Framework;
using Tmds.Linux;
using Vmm.Devices.Spawning;
using Vmm.Guest;
using Vmm.Tests.Integration.Linux.Devices;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Guest;

[System.Runtime.Versioning.SupportedOSPlatform("linux")]
public sealed partial class GuestDirectoryTests
{
    private const long SetResUid = 117, Unchanged = -1, Nobody = 65534;     // asm/unistd_64.h, setresuid(2)

    private readonly string _name = $"test-{Guid.NewGuid():N}"[..20];

    [Test]
    public void Claim_NameThatIsTaken_IsRefusedUntilItIsFree()
    {
        using (GuestDirectory.Claim(_name))
            Assert.That(() => GuestDirectory.Claim(_name), Throws.TypeOf<VmmException>().With.Message.Contains($"called {_name} runs already"));
        using GuestDirectory again = GuestDirectory.Claim(_name);
        Assert.That(Directory.Exists(Path.GetDirectoryName(again.Socket)), Is.True);
    }

    [Test]
    public void Claim_ManyAtOnce_OneGetsIt()
    {
        const int count = 6;
        for (int round = 0; round < 50; round++)
        {
            using var start = new Barrier(count);
            var threads = new Task<GuestDirectory?>[count];
            for (int i = 0; i < count; i++)
                threads[i] = Task.Factory.StartNew(() => TryClaim(start), TaskCreationOptions.LongRunning);
            Task.WaitAll(threads);
            GuestDirectory[] claimed = [.. threads.Select(thread => thread.Result).OfType<GuestDirectory>()];
            Assert.That(claimed, Has.Length.EqualTo(1), $"round {round}");
            Assert.That(Directory.Exists(Path.GetDirectoryName(claimed[0].Socket)), Is.True);
            claimed[0].Dispose();
        }

        GuestDirectory? TryClaim(Barrier start)
        {
            start.SignalAndWait();
            try
            {
                return GuestDirectory.Claim(_name);
            }
            catch (VmmException e) when (e.Message.Contains("runs already", StringComparison.Ordinal))
            {
                return null;
            }
        }
    }

    [TestCase(false)]
    [TestCase(true)]
    public void AcceptAgent_BackEndThatListens_IsAskedForThePort(bool isConfined)
    {
        using var spawner = new LocalSpawner();
        using GuestDirectory directory = GuestDirectory.Create();
        Assert.That(directory.AcceptAgent(isConfined ? spawner : null), Is.Null, "nobody listens");
        using var listener = UnixListener.Listen(directory.Socket);
        using UnixSocket? ours = directory.AcceptAgent(isConfined ? spawner : null);
        using UnixSocket? theirs = listener.TryAccept();
        byte[] line = new byte[100];
        Assert.That(line[..theirs!.TryRead(line)], Is.EqualTo("ACCEPT 1024\n"u8.ToArray()));
        Assert.That(Directory.GetFileSystemEntries(Path.GetDirectoryName(directory.Socket)!), Is.EqualTo(new[] { directory.Socket }));
    }

    [TestCase(false)]
    [TestCase(true)]
    public void AcceptAgent_SomethingElseIsThere_IsAnError(bool isConfined)
    {
        using var spawner = new LocalSpawner();
        using GuestDirectory directory = GuestDirectory.Create();
        File.WriteAllText(directory.Socket, "");
        Assert.That(() => directory.AcceptAgent(isConfined ? spawner : null), Throws.InstanceOf<IOException>().With.Message.Contains(directory.Socket));
    }

    [Test]
    public void Claim_WhatWasLeftBehind_IsTakenOver()
    {
        string path;
        using (GuestDirectory directory = GuestDirectory.Claim(_name))
            path = Path.GetDirectoryName(directory.Socket)!;
        Directory.CreateDirectory(path, Mode("700"));
        File.WriteAllText(Path.Combine(path, "left"), "");
        using (GuestDirectory.Claim(_name))
            Assert.That(File.Exists(Path.Combine(path, "left")), Is.False);
        Assert.That(Directory.Exists(path), Is.False);
    }

    [Test]
    public void LeaveTo_Spawner_RemovesItAtItsEnd()
    {
        using GuestDirectory directory = GuestDirectory.Claim(_name);
        string path = Path.GetDirectoryName(directory.Socket)!;
        using (var spawner = new LocalSpawner())
        {
            directory.LeaveTo(spawner);
            File.WriteAllText(Path.Combine(path, "in it"), "");
        }
        Assert.That(Directory.Exists(path), Is.False);
        Directory.CreateDirectory(path);
        directory.Dispose();
        Assert.That(Directory.Exists(path), "it is not this process's to remove");
        Directory.Delete(path);
    }

    [Test]
    public void Connect_GuestThatIsNotThere_SaysSo() =>
        Assert.That(() => GuestDirectory.Connect(_name), Throws.TypeOf<VmmException>().With.Message.Contains($"no guest called {_name}"));

    // As by a script that starts the guest in the background. Its back-end answers, but not yet for the agent.
    [Test]
    public void Connect_GuestThatIsBeingStarted_IsWaitedFor()
    {
        using var begins = new ManualResetEventSlim();
        Task<UnixSocket> connect = Task.Factory.StartNew(
            () =>
            {
                begins.Set();
                return GuestDirectory.Connect(_name)!;
            },
            TaskCreationOptions.LongRunning);
        begins.Wait();
        Thread.Sleep(200);      // there is no guest of that name yet
        using GuestDirectory directory = GuestDirectory.Claim(_name);
        Thread.Sleep(1000);     // longer than one is waited for that does not come
        using var listener = UnixListener.Listen(directory.Socket);
        Assert.That(Poll.Wait([new PollEntry(listener, PollEvents.Readable)], 5000), Is.EqualTo(1));
        listener.TryAccept()!.Dispose();
        Assert.That(Poll.Wait([new PollEntry(listener, PollEvents.Readable)], 5000), Is.EqualTo(1));
        using UnixSocket server = listener.TryAccept()!;
        Assert.That(server.TrySend("OK 1\n"u8, []), Is.EqualTo(5));

        Assert.That(connect.Wait(5000), Is.True);
        connect.Result.Dispose();
    }

    // Its process was killed, and what removes it, too.
    [Test]
    public void Connect_DirectoryOfADeadGuest_IsNoGuest()
    {
        using var host = new HostTree();
        Directory.CreateDirectory(Path.Combine(host.In("place"), _name), Mode("700"));
        File.SetUnixFileMode(host.In("place"), Mode("700"));
        long start = Environment.TickCount64;

        Assert.That(() => GuestDirectory.Connect(_name, [host.In("place")]), Throws.TypeOf<VmmException>().With.Message.Contains($"no guest called {_name} runs"));
        Assert.That(Environment.TickCount64 - start, Is.LessThan(10_000));
    }

    // cron has no XDG_RUNTIME_DIR, and a login has one.
    [Test]
    public void Connect_GuestOfAnotherEnvironment_IsFound()
    {
        using var host = new HostTree();
        foreach (string place in new[] { "one", "two" })
            Directory.CreateDirectory(host.In(place), Mode("700"));
        using GuestDirectory directory = GuestDirectory.Claim(_name, [host.In("two")]);
        using var listener = UnixListener.Listen(directory.Socket);
        Task<UnixSocket> connect = Task.Run(() => GuestDirectory.Connect(_name, [host.In("one"), host.In("none"), host.In("two")])!);
        Assert.That(Poll.Wait([new PollEntry(listener, PollEvents.Readable)], 5000), Is.EqualTo(1));
        using UnixSocket server = listener.TryAccept()!;
        Assert.That(server.TrySend("OK 1\n"u8, []), Is.EqualTo(5));

        Assert.That(connect.Wait(5000), Is.True);
        connect.Result.Dispose();
        Assert.That(() => GuestDirectory.Claim(_name, [host.In("one"), host.In("two")]), Throws.TypeOf<VmmException>().With.Message.Contains($"called {_name} runs already"));
        using GuestDirectory other = GuestDirectory.Claim($"{_name}-2", [host.In("one"), host.In("two")]);
        Assert.That(other.Socket, Does.StartWith(host.In("one")));
    }

    [Test]
    public void Connect_NoGuest_NamesThePlaces()
    {
        using var host = new HostTree();
        host.Add("open/file");
        File.SetUnixFileMode(host.In("open"), Mode("755"));

        Assert.That(() => GuestDirectory.Connect(_name, [host.In("none"), host.In("open")]),
            Throws.TypeOf<VmmException>().With.Message.Contains($"no guest called {_name} runs (looked for in {host.In("none")}, {host.In("open")}): start one"));
    }

    [Test]
    public void Places_OfThisUser_BeginWithThatOfThisEnvironment()
    {
        using var host = new HostTree();
        string? before = Environment.GetEnvironmentVariable("XDG_RUNTIME_DIR");
        try
        {
            Environment.SetEnvironmentVariable("XDG_RUNTIME_DIR", host.Root);
            IReadOnlyList<string> places = GuestDirectory.Places();
            Environment.SetEnvironmentVariable("XDG_RUNTIME_DIR", null);

            Assert.That(places[0], Is.EqualTo(host.In("vmm-exec")));
            Assert.That(GuestDirectory.Places(), Is.EqualTo(places.Skip(1)).And.Contains($"/tmp/vmm-exec-{Vmm.Vhost.Native.FileSystem.FileOwner.User}"));
        }
        finally
        {
            Environment.SetEnvironmentVariable("XDG_RUNTIME_DIR", before);
        }
    }

    [Test]
    public void Connect_GuestWithoutVsock_IsToldAtOnce()
    {
        using GuestDirectory directory = GuestDirectory.Claim(_name);
        directory.RefuseOthers();
        long start = Environment.TickCount64;

        Assert.That(() => GuestDirectory.Connect(_name), Throws.TypeOf<VmmException>().With.Message.Contains($"the kernel of the guest called {_name} has no vsock"));
        Assert.That(Environment.TickCount64 - start, Is.LessThan(5000));
    }

    [Test]
    public void Claim_PlaceWithALongName_SaysWhatToDo()
    {
        using var host = new HostTree();
        string place = host.In(new string('x', 100));

        Assert.That(() => GuestDirectory.Claim(_name, [place]), Throws.TypeOf<VmmException>().With.Message.StartsWith("--name: ").And.Message.Contains("set XDG_RUNTIME_DIR to a shorter one"));
        Assert.That(Directory.Exists(place), Is.False);
    }

    [TestCase(false)]
    [TestCase(true)]    // its back-end takes the connection, and nobody answers
    public void Connect_GuestThatDoesNotBoot_IsWaitedForUntilTheTimeIsOver(bool listens)
    {
        using GuestDirectory directory = GuestDirectory.Claim(_name);
        using UnixListener? listener = listens ? UnixListener.Listen(directory.Socket) : null;
        long start = Environment.TickCount64;

        Assert.That(GuestDirectory.Connect(_name, start + 1500), Is.Null);
        Assert.That(Environment.TickCount64 - start, Is.InRange(1500, 4500));
    }

    [Test]
    public void Connect_WhereSomebodyAnswers_IsConnectedBehindTheAnswer()
    {
        using GuestDirectory directory = GuestDirectory.Claim(_name);
        using var listener = UnixListener.Listen(directory.Socket);
        Task<UnixSocket> connect = Task.Run(() => GuestDirectory.Connect(_name)!);
        Assert.That(() => Poll.Wait([new PollEntry(listener, PollEvents.Readable)], 5000), Is.EqualTo(1));
        using UnixSocket server = listener.TryAccept()!;
        Poll.Wait([new PollEntry(server, PollEvents.Readable)], 5000);
        byte[] buffer = new byte[100];
        Assert.That(System.Text.Encoding.ASCII.GetString(buffer, 0, server.TryRead(buffer)), Is.EqualTo("CONNECT 1024\n"));
        Assert.That(server.TrySend("OK 1073741824\nrest"u8, []), Is.EqualTo(18));
        using UnixSocket client = connect.Result;
        Assert.That(System.Text.Encoding.ASCII.GetString(buffer, 0, client.TryRead(buffer)), Is.EqualTo("rest"));
    }

    [Test]
    public void Claim_Place_IsMadeForThisUserAlone()
    {
        using var host = new HostTree();
        string place = host.In("place");
        using (GuestDirectory.Claim(_name, [place]))
            Assert.That((File.GetUnixFileMode(place), File.GetUnixFileMode(Path.Combine(place, _name))), Is.EqualTo((Mode("700"), Mode("700"))));
        Assert.That(Directory.GetFileSystemEntries(place), Is.Empty);
    }

    // So that nobody's directory takes the name between a look at it and what follows.
    [Test]
    public void Claim_AndTheEndOfASpawner_WaitForEachOther()
    {
        using var host = new HostTree();
        string place = host.In("place"), path = Path.Combine(place, _name);
        var spawner = new LocalSpawner();
        using (GuestDirectory killed = GuestDirectory.Claim(_name, [place]))
            killed.LeaveTo(spawner);

        DirectoryLock turn = DirectoryLock.TryTake(place, 0)!;
        Task end = Task.Run(spawner.Dispose);
        Assert.That(end.Wait(300), Is.False, "the spawner waits");
        Assert.That(Directory.Exists(path));
        turn.Dispose();
        Assert.That(end.Wait(10_000));
        Assert.That(Directory.Exists(path), Is.False);

        turn = DirectoryLock.TryTake(place, 0)!;
        Task<GuestDirectory> claim = Task.Run(() => GuestDirectory.Claim(_name, [place]));
        Assert.That(claim.Wait(300), Is.False, "the next guest waits");
        Assert.That(Directory.Exists(path), Is.False);
        turn.Dispose();
        Assert.That(claim.Wait(10_000));
        using GuestDirectory next = claim.Result;
        Assert.That(Directory.Exists(path));
    }

    [Test]
    public void Claim_PlaceThatIsOpenToOthersOrALink_IsRefused()
    {
        using var host = new HostTree();
        host.Add("open/file");
        File.SetUnixFileMode(host.In("open"), Mode("755"));
        Directory.CreateDirectory(host.In("private"), Mode("700"));
        File.CreateSymbolicLink(host.In("link"), "private");

        foreach (string place in new[] { "open", "link", "open/file" })
        {
            Assert.That(() => GuestDirectory.Claim(_name, [host.In(place)]), Throws.TypeOf<VmmException>().With.Message.StartsWith("--name: ").And.Message.Contains("XDG_RUNTIME_DIR"));
            Assert.That(() => GuestDirectory.Connect(_name, [host.In(place)]), Throws.TypeOf<VmmException>().With.Message.StartsWith("--attach: ").And.Message.Contains("XDG_RUNTIME_DIR"));
        }
        Assert.That(Directory.GetFileSystemEntries(host.In("private")), Is.Empty);
    }

    [Test]
    public void Claim_PlaceOfAnotherUser_IsRefused()
    {
        if (!Environment.IsPrivilegedProcess)
            Assert.Ignore("only root makes files of another user");
        using var host = new HostTree();
        string place = Directory.CreateDirectory(host.In("place"), Mode("700")).FullName;
        HostCommand.Run("chown", "65534:65534", place);

        Assert.That(() => GuestDirectory.Claim(_name, [place]), Throws.TypeOf<VmmException>().With.Message.Contains("another user's"));
    }

    [Test]
    public void Claim_DirectoryThatIsALink_IsRefused()
    {
        using var host = new HostTree();
        string place = Directory.CreateDirectory(host.In("place"), Mode("700")).FullName;
        host.Add("elsewhere/file");
        File.CreateSymbolicLink(Path.Combine(place, _name), host.In("elsewhere"));

        Assert.That(() => GuestDirectory.Claim(_name, [place]), Throws.TypeOf<VmmException>().With.Message.StartsWith("--name: cannot open"));
        Assert.That(File.Exists(host.In("elsewhere/file")));
    }

    [Test]
    public void Connect_WhereAnotherUserListens_IsRefused()
    {
        if (!Environment.IsPrivilegedProcess)
            Assert.Ignore("only root can listen as another user");
        using var host = new HostTree();
        string place = Directory.CreateDirectory(host.In("place"), Mode("700")).FullName;
        using GuestDirectory directory = GuestDirectory.Claim(_name, [place]);
        using UnixListener listener = UnixListener.Listen(directory.Socket);

        AsAnotherUser(() => Listen(listener));

        Assert.That(() => GuestDirectory.Connect(_name, [place]), Throws.TypeOf<VmmException>().With.Message.EqualTo($"--attach: the guest called {_name} is another user's"));
    }

    [TestCase("")]
    [TestCase(".hidden")]
    [TestCase("a/b")]
    [TestCase("..")]
    [TestCase("a name that is longer than any name of a guest")]
    public void Claim_NameThatIsNone_IsRefused(string name) =>
        Assert.That(() => GuestDirectory.Claim(name), Throws.TypeOf<UsageException>().With.Message.StartsWith("--name: "));

    private static UnixFileMode Mode(string octal) => (UnixFileMode)Convert.ToInt32(octal, 8);

    // Who listens last is who the kernel names as the peer.
    private static void Listen(UnixListener listener) => Assert.That(LibC.listen(listener.Number, 1), Is.Zero);

    // The system call changes the calling thread only, which ends with this.
    private static void AsAnotherUser(Action action)
    {
        Exception? failure = null;
        var thread = new Thread(() =>
        {
            try
            {
                Assert.That(SystemCall(SetResUid, Unchanged, Nobody, Unchanged), Is.Zero);
                action();
            }
            catch (Exception e)
            {
                failure = e;
            }
        });
        thread.Start();
        thread.Join();
        Assert.That(failure, Is.Null);
    }

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static partial long SystemCall(long number, long real, long effective, long saved);
}
