using System.Text;
using Vmm.Devices.Spawning;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Guest;

/// <summary>A directory of a guest's own, with the sockets of its vsock device. With a name others find it, and get into the guest. It goes with
/// this object.</summary>
internal sealed class GuestDirectory : IDisposable
{
    private const string PlaceName = "vmm-exec";
    private const string SocketName = "vsock";
    private const string RefusalName = "no-vsock";      // is there where nobody else can get into the guest
    private const uint AgentPort = 1024;        // of the host, where the guest's agent connects to, and of the guest, where it listens
    private const int MaxName = 32;
    private const string Advice = "remove it, or set XDG_RUNTIME_DIR to a directory of yours";
    private const int MaxAnswer = 32;
    private const int Patience = 5000;          // milliseconds
    private const int StartPatience = 1000;     // for a guest whose process is just being started
    private const int BootPatience = 30_000;    // for one that has not booted yet
    private const int Interval = 50;            // between attempts

    private readonly string _path;
    private readonly FileDescriptor? _lock;     // the directory: as long as it is locked, the name is taken; the kernel unlocks it for a process that dies
    private bool _isLeft;   // to a spawner

    private GuestDirectory(string path, FileDescriptor? @lock) => (_path, _lock) = (path, @lock);

    /// <summary>The vsock device's socket.</summary>
    public string Socket => Path.Combine(_path, SocketName);

    /// <summary>Makes one without a name.</summary>
    /// <exception cref="ErrnoException">There is no place for it.</exception>
    public static GuestDirectory Create() => new(SocketDirectory.Create(SocketName), null);

    /// <summary>Makes that of <paramref name="name"/>, in the place of one that a guest has left behind.</summary>
    /// <exception cref="VmmException">A guest of that name runs, or there is no place for it.</exception>
    public static GuestDirectory Claim(string name) => Claim(name, Places());

    /// <inheritdoc cref="Claim(string)"/>
    /// <param name="name">The name.</param>
    /// <param name="places">The directories of the directories of guests of this user that have a name. The first one, in which it is to be, is made if it is not there.</param>
    internal static GuestDirectory Claim(string name, IReadOnlyList<string> places)
    {
        CheckName("--name", name);
        string place = places[0];
        CheckLength(Path.Combine(place, name, SocketName));
        // Another environment has another first place.
        if (places.Skip(1).Any(other => IsClaimed(name, other)))
            throw IsTaken(name);
        FileDescriptor? file = null;
        try
        {
            PrivateDirectory.Open(place, isMade: true, Advice).Dispose();
            // One after another: nobody makes or removes a directory in there between what follows.
            using DirectoryLock turn = DirectoryLock.TryTake(place, Patience) ?? throw new VmmException($"--name: another process has had the lock of {place} for {Patience / 1000} s: end it");
            string path = Path.Combine(place, name);
            if (FileKind.Identity(path) is not null)
            {
                using FileDescriptor old = PrivateDirectory.Open(path, isMade: false, Advice);
                if (!TryLock(old))
                    throw IsTaken(name);
                Remove(path);
            }
            PrivateDirectory.Make(path);
            file = PrivateDirectory.Open(path, isMade: false, Advice);
            if (!TryLock(file))
                throw new VmmException($"--name: another process has the lock of {path}: end it");
            var directory = new GuestDirectory(path, file);
            file = null;
            return directory;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new VmmException($"--name: {e.Message}", e);
        }
        finally
        {
            file?.Dispose();
        }
    }

    /// <summary>Connects with the agent of the guest called <paramref name="name"/>. One that was started just before is waited for: 1 s until it is there, and 30 s until it
    /// has booted.</summary>
    /// <param name="name">The name.</param>
    /// <param name="deadline">Until when at the most, as <see cref="Environment.TickCount64"/> counts.</param>
    /// <returns>Null if that time came first.</returns>
    /// <exception cref="VmmException">There is no such guest, or it does not answer.</exception>
    public static UnixSocket? Connect(string name, long? deadline = null) => Connect(name, Places(), deadline);

    /// <inheritdoc cref="Connect(string, long?)"/>
    /// <param name="name">The name.</param>
    /// <param name="places">The directories of the directories of guests of this user that have a name. What is wrong with the first one is an error; another one may be anybody's.</param>
    /// <param name="deadline">Until when at the most.</param>
    internal static UnixSocket? Connect(string name, IReadOnlyList<string> places, long? deadline = null)
    {
        CheckName("--attach", name);
        long start = Environment.TickCount64;
        while (true)
        {
            string place = places.FirstOrDefault(each => IsClaimed(name, each)) ?? places[0];
            UnixSocket? socket = TryConnect(name, place);
            if (socket is not null && ReadsOk(socket, deadline))
                return socket;
            socket?.Dispose();
            if (deadline <= Environment.TickCount64)
                return null;
            bool isThere = IsClaimed(name, place);
            if (isThere && FileKind.Identity(Path.Combine(place, name, RefusalName)) is not null)
                throw new VmmException($"--attach: the kernel of the guest called {name} has no vsock, by which one more command gets in: start the guest with another kernel (--kernel)");
            if (Environment.TickCount64 - start >= (isThere ? BootPatience : StartPatience))
            {
                throw new VmmException(isThere || socket is not null
                    ? $"--attach: the guest called {name} does not answer: it has not booted yet, or hangs"
                    : $"--attach: no guest called {name} runs (looked for in {string.Join(", ", places)}): start one by vmm exec --name {name}");
            }
            Thread.Sleep(Interval);
        }
    }

    // Whether the process of a guest of that name lives. It holds the lock of the guest's directory; this method tries to take that lock. Claim would take such an attempt for a guest that
    // runs. So both take the lock of the place first.
    private static bool IsClaimed(string name, string place)
    {
        if (!PrivateDirectory.Is(place))
            return false;   // it may be anybody's: nobody waits for a lock of it
        try
        {
            using DirectoryLock? turn = DirectoryLock.TryTake(place, Patience);
            using FileDescriptor directory = PrivateDirectory.Open(Path.Combine(place, name), isMade: false, Advice);
            return !TryLock(directory);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return false;   // it is not there
        }
    }

    // To the back-end of its vsock device, which is asked for the agent; null if there is none.
    private static UnixSocket? TryConnect(string name, string place)
    {
        UnixSocket? socket = null;
        try
        {
            using FileDescriptor directoryOfAll = PrivateDirectory.Open(place, isMade: false, Advice);
            _ = UnixSocket.TryConnect(Path.Combine(place, name, SocketName), out socket);
        }
        catch (ErrnoException e) when (e.Errno != Errnos.Enoent)
        {
            throw new VmmException($"--attach: {e.Message}", e);
        }
        catch (ErrnoException)
        {
            // This user has had no guest with a name.
        }
        if (socket is null)
            return null;
        // Whoever listens there has the command and its input.
        if (socket.PeerUserId != FileOwner.User)
        {
            socket.Dispose();
            throw new VmmException($"--attach: the guest called {name} is another user's");
        }
        _ = socket.TrySend(Encoding.ASCII.GetBytes($"CONNECT {AgentPort}\n"), []);
        return socket;
    }

    /// <summary>Asks the back-end of the vsock device for the connection that the guest's agent is going to make. On it comes the line <c>OK port</c>, and then what
    /// the agent says.</summary>
    /// <param name="spawner">What connects for this process where that is confined (<see cref="LeaveTo"/>); null for this process.</param>
    /// <returns>Null if the back-end does not listen now.</returns>
    /// <exception cref="IOException">The spawner is gone, there are no descriptors left, or the socket cannot be connected to.</exception>
    public UnixSocket? AcceptAgent(ISpawner? spawner)
    {
        int error = spawner is null ? UnixSocket.TryConnect(Socket, out UnixSocket? socket) : spawner.TryConnect(Socket, out socket);
        if (error is not (0 or Errnos.Enoent or Errnos.Econnrefused or Errnos.Eagain))
            throw UnixSocket.CannotConnect(Socket, error);
        // A back-end that has gone meanwhile is seen by the end of the connection.
        _ = socket?.TrySend(Encoding.ASCII.GetBytes($"ACCEPT {AgentPort}\n"), []);
        return socket;
    }

    /// <summary>Has <paramref name="spawner"/> remove the directory at its end, and connect to the vsock device's socket: this process will not be able to. The name is
    /// taken until this object goes, which must be after the spawner.</summary>
    /// <exception cref="IOException">The spawner is gone.</exception>
    public void LeaveTo(ISpawner spawner)
    {
        spawner.AllowConnection(Socket);
        spawner.RemoveAtEnd(_path);
        _isLeft = true;
    }

    /// <summary>Has <see cref="Connect(string, long?)"/> say at once that this guest has no vsock device.</summary>
    /// <exception cref="ErrnoException">The directory cannot be written to.</exception>
    public void RefuseOthers() => FileDescriptor.Open(Path.Combine(_path, RefusalName), OpenMode.CreateTruncate).Dispose();

    /// <inheritdoc/>
    public void Dispose()
    {
        try
        {
            if (!_isLeft)
                Remove(_path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // What is left is in the way of nobody: the next guest of that name removes it.
        }
        _lock?.Dispose();
    }

    // The spawner of a process that was killed may be about to do the same.
    private static void Remove(string path)
    {
        try
        {
            Directory.Delete(path, recursive: true);
        }
        catch (DirectoryNotFoundException)
        {
        }
    }

    private static bool TryLock(FileDescriptor file)
    {
        using HeldDescriptor held = file.Hold();
        int error = OpenFileIo.Flock(held, OpenFileIo.FlockExclusive | OpenFileIo.FlockNonBlocking);
        return error is 0 or -Errnos.Eagain ? error == 0 : throw new ErrnoException("flock", -error);
    }

    /// <summary>Makes sure that <paramref name="name"/> can be a guest's.</summary>
    /// <param name="option">The option that gives it.</param>
    /// <param name="name">The name.</param>
    /// <exception cref="UsageException">It cannot.</exception>
    public static void CheckName(string option, string name)
    {
        if (name.Length is 0 or > MaxName || name[0] == '.' || !name.All(character => char.IsAsciiLetterOrDigit(character) || character is '-' or '_' or '.'))
            throw new UsageException($"{option}: '{name}' is no name of a guest: it has 1 to {MaxName} letters, digits, '-', '_' and '.', and does not begin with '.'");
    }

    /// <summary>Where the directories of guests with a name are: in XDG_RUNTIME_DIR, if it is this user's; root has /run, and everybody /tmp. The first place is that of this
    /// environment, the others are those of other environments of this user: cron, for example, sets no XDG_RUNTIME_DIR, and a login sets it to /run/user/UID.</summary>
    internal static IReadOnlyList<string> Places()
    {
        string login = $"/run/user/{FileOwner.User}";
        string? runtime = Environment.GetEnvironmentVariable("XDG_RUNTIME_DIR");
        return
        [
            .. new[]
            {
                runtime is { Length: > 0 } && Path.IsPathRooted(runtime) && FileKind.IsOwn(runtime) ? Path.Combine(runtime, PlaceName) : null,
                FileKind.IsOwn("/run") ? $"/run/{PlaceName}" : null,
                $"/tmp/{PlaceName}-{FileOwner.User}",
                FileKind.IsOwn(login) ? $"{login}/{PlaceName}" : null,
            }.OfType<string>().Distinct(),
        ];
    }

    private static VmmException IsTaken(string name) => new($"--name: a guest called {name} runs already: give another name, or get into it by --attach {name}");

    private static void CheckLength(string socket)
    {
        int length = ByteText.Encode(socket).Length;
        if (length > UnixSocket.MaxPathBytes)
            throw new VmmException($"--name: the path of the guest's socket, {socket}, has {length} bytes, and a socket's has {UnixSocket.MaxPathBytes} at most: give a shorter name, or set XDG_RUNTIME_DIR to a shorter one");
    }

    // "OK port\n", byte by byte: what follows is the agent's.
    private static bool ReadsOk(UnixSocket socket, long? deadline)
    {
        Span<byte> answer = stackalloc byte[MaxAnswer];
        long end = Math.Min(Environment.TickCount64 + Patience, deadline ?? long.MaxValue);
        for (int length = 0; length < MaxAnswer;)
        {
            int count = socket.TryRead(answer.Slice(length, 1));
            long left = end - Environment.TickCount64;
            if (count == -Errnos.Eagain && left > 0)
                Poll.Wait([new PollEntry(socket, PollEvents.Readable)], (int)left);
            else if (count <= 0)
                return false;
            else if (answer[length++] == '\n')
                return answer.StartsWith("OK "u8);
        }
        return false;
    }
}
