using System.Diagnostics;
using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Native;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Backend;

namespace Vmm.Tests.Native;

public class UnixListenerTests
{
    private readonly string _path = Path.Combine(Path.GetTempPath(), $"vmm-{Guid.NewGuid():N}.sock");

    [TearDown]
    public void Remove() => File.Delete(_path);

    [Test]
    public void Path_WithAZeroByte_IsRefusedAndNotCut()
    {
        string path = Path.Combine(Path.GetTempPath(), Path.GetRandomFileName());
        using UnixListener listener = UnixListener.Listen(path);
        string cut = $"{path}\0b";
        string message = $"{path}\\0b cannot name a socket: Invalid argument (errno 22): a path has no zero byte";
        Assert.That(() => UnixSocket.Connect(cut), Throws.TypeOf<ErrnoException>().With.Message.EqualTo(message));
        Assert.That(() => UnixListener.Listen(cut), Throws.TypeOf<ErrnoException>().With.Message.EqualTo(message));
        using var server = new VhostUserServer(VhostUserEndpoint.ConnectTo(cut), new EchoDevice());
        Task run = Task.Run(server.Run);
        AggregateException error = Assert.Throws<AggregateException>(() => run.Wait(TimeSpan.FromSeconds(30)))!;
        Assert.That(error.InnerException, Is.TypeOf<ErrnoException>());
        Assert.That(error.InnerException!.Message, Is.EqualTo(message));
    }

    [Test]
    public void Listen_ManyAtOnceOverAStaleSocket_OneGetsIt()
    {
        const int rounds = 100, count = 4;
        for (int round = 0; round < rounds; round++)
        {
            using (UnixListener stale = UnixListener.Listen(_path))
                stale.LeaveFile();
            using var start = new Barrier(count);
            var tries = new Task<UnixListener?>[count];
            for (int i = 0; i < count; i++)
                tries[i] = Task.Factory.StartNew(() => TryListen(start), TaskCreationOptions.LongRunning);
            UnixListener?[] listeners = Task.WhenAll(tries).Result;
            Assert.That(listeners.Count(listener => listener is not null), Is.EqualTo(1), $"round {round}");
            foreach (UnixListener? listener in listeners)
                listener?.Dispose();
            Assert.That(Path.Exists(_path), Is.False);
        }

        UnixListener? TryListen(Barrier start)
        {
            start.SignalAndWait();
            try
            {
                return UnixListener.Listen(_path);
            }
            catch (ErrnoException e) when (e.Errno == Errnos.Eaddrinuse)
            {
                return null;
            }
        }
    }

    [Test]
    public void Listen_AnotherOneIsAboutToListenInTheDirectory_WaitsForThat()
    {
        Task<UnixListener> listen;
        using (DirectoryLock? other = DirectoryLock.TryTake(Path.GetDirectoryName(_path)!, 10_000))
        {
            Assert.That(other, Is.Not.Null);
            long start = Stopwatch.GetTimestamp();
            listen = Task.Factory.StartNew(() => UnixListener.Listen(_path), TaskCreationOptions.LongRunning);
            bool hasListened = listen.Wait(300);
            if (Stopwatch.GetElapsedTime(start) > TimeSpan.FromSeconds(1.5))
                Assert.Ignore("this host is too busy: it does not wait much longer");
            Assert.That(hasListened, Is.False);
        }
        listen.Result.Dispose();
    }

    [Test]
    public void Listen_DirectoryLockedByAnotherProgram_IsNotHeldUpForEver()
    {
        using DirectoryLock? other = DirectoryLock.TryTake(Path.GetDirectoryName(_path)!, 10_000);
        Assert.That(other, Is.Not.Null);
        Assert.That(DirectoryLock.TryTake(Path.GetDirectoryName(_path)!, 0), Is.Null);
        UnixListener.Listen(_path).Dispose();
    }

    [Test]
    public void Dispose_ItsFile_IsRemoved()
    {
        UnixListener.Listen(_path).Dispose();
        Assert.That(Path.Exists(_path), Is.False);
    }

    [Test]
    public void Dispose_WhileAnotherThreadUsesIt_RemovesTheFileAtOnce()
    {
        UnixListener listener = UnixListener.Listen(_path);
        using (listener.Hold())
        {
            listener.Dispose();
            Assert.That(Path.Exists(_path), Is.False);
            UnixListener.Listen(_path).Dispose();
        }
    }

    [Test]
    public void Dispose_AnothersFileInItsPlace_IsLeft()
    {
        UnixListener first = UnixListener.Listen(_path);
        File.Delete(_path);
        using UnixListener second = UnixListener.Listen(_path);
        first.Dispose();
        Assert.That(Path.Exists(_path), Is.True);
        Assert.That(UnixSocket.TryConnect(_path, out UnixSocket? socket), Is.Zero);
        socket!.Dispose();
    }

    [Test]
    public void Listen_ManyConnectBeforeTheFirstIsAccepted_AllAreTaken()
    {
        using UnixListener listener = UnixListener.Listen(_path);
        var sockets = new List<UnixSocket>();
        for (int i = 0; i < 100; i++)
        {
            Assert.That(UnixSocket.TryConnect(_path, out UnixSocket? socket), Is.Zero, $"connection {i}");
            sockets.Add(socket!);
        }
        sockets.ForEach(socket => socket.Dispose());
    }
}
