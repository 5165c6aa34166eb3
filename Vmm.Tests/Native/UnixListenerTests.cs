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
    public void Listen_TwoAtOnceOverAStaleSocket_OneIsRefused()
    {
        const int rounds = 300;
        for (int round = 0; round < rounds; round++)
        {
            using (UnixListener stale = UnixListener.Listen(_path))
                stale.LeaveFile();
            using var start = new Barrier(2);
            UnixListener?[] listeners = new UnixListener?[2];
            int[] errors = new int[2];
            Parallel.For(0, 2, new ParallelOptions { MaxDegreeOfParallelism = 2 }, i =>
            {
                try
                {
                    start.SignalAndWait();
                    listeners[i] = UnixListener.Listen(_path);
                }
                catch (ErrnoException e)
                {
                    errors[i] = e.Errno;
                }
            });
            Assert.That(listeners.Count(listener => listener is not null), Is.EqualTo(1), $"round {round}");
            Assert.That(errors, Does.Contain(Errnos.Eaddrinuse));
            foreach (UnixListener? listener in listeners)
                listener?.Dispose();
            Assert.That(Path.Exists(_path), Is.False);
        }
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
