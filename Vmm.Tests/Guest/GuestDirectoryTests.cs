using NUnit.Framework;
using Vmm.Devices.Spawning;
using Vmm.Guest;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Guest;

public sealed class GuestDirectoryTests
{
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

    [Test]
    public void Claim_WhatWasLeftBehind_IsTakenOver()
    {
        string path;
        using (GuestDirectory directory = GuestDirectory.Claim(_name))
            path = Path.GetDirectoryName(directory.Socket)!;
        Directory.CreateDirectory(path);
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

    [Test]
    public void Connect_WhereSomebodyAnswers_IsConnectedBehindTheAnswer()
    {
        using GuestDirectory directory = GuestDirectory.Claim(_name);
        using var listener = UnixListener.Listen(directory.Socket);
        Task<UnixSocket> connect = Task.Run(() => GuestDirectory.Connect(_name));
        Assert.That(() => Poll.Wait([new PollEntry(listener, PollEvents.Readable)], 5000), Is.EqualTo(1));
        using UnixSocket server = listener.TryAccept()!;
        Poll.Wait([new PollEntry(server, PollEvents.Readable)], 5000);
        byte[] buffer = new byte[100];
        Assert.That(System.Text.Encoding.ASCII.GetString(buffer, 0, server.TryRead(buffer)), Is.EqualTo("CONNECT 1024\n"));
        Assert.That(server.TrySend("OK 1073741824\nrest"u8, []), Is.EqualTo(18));
        using UnixSocket client = connect.Result;
        Assert.That(System.Text.Encoding.ASCII.GetString(buffer, 0, client.TryRead(buffer)), Is.EqualTo("rest"));
    }

    [TestCase("")]
    [TestCase(".hidden")]
    [TestCase("a/b")]
    [TestCase("..")]
    [TestCase("a name that is longer than any name of a guest")]
    public void Claim_NameThatIsNone_IsRefused(string name) =>
        Assert.That(() => GuestDirectory.Claim(name), Throws.TypeOf<UsageException>().With.Message.StartsWith("--name: "));
}
