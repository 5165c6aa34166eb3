using Vmm.Vhost;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Spawning;

/// <summary>Does it in this process.</summary>
public sealed class LocalSpawner : ISpawner
{
    private const int Patience = 2000;      // milliseconds that a program has to end by itself
    private const string SocketName = "socket";

    private static readonly BoundedLog s_log = new("Vmm.Devices.Spawning");

    private readonly Lock _lock = new();
    private readonly List<Place> _places = [];
    // A directory is kept open: as long as it is, no other one has its identity.
    private readonly List<(string Path, (ulong Device, ulong Inode) Identity, FileDescriptor? Directory)> _removed = [];

    /// <inheritdoc/>
    public SpawnerSlot Add(SpawnerProgram program)
    {
        string directory = SocketDirectory.Create(SocketName);
        lock (_lock)
        {
            _places.Add(new Place(program, directory));
            return new SpawnerSlot(_places.Count - 1, _places[^1].Socket);
        }
    }

    /// <inheritdoc/>
    public IStartedProcess Start(SpawnerSlot slot)
    {
        lock (_lock)
        {
            Place place = _places[slot.Index];
            if (place.IsRemoved)
                throw new ErrnoException($"cannot start {place.Program.Path}: its place was removed", Errnos.Enoent);
            if (place.Process?.Kill(Patience) == false)
                throw new ErrnoException($"cannot start {place.Program.Path}: process {place.Process.Id}, which ran before, does not end", Errnos.Ebusy);
            place.Process?.Dispose();
            // It inherits the socket instead of making it: so nobody has to wait for it, and it writes no lock file.
            using var listener = UnixListener.Listen(slot.SocketPath);
            place.Process = ChildProcess.Start(place.Program.Path, place.Arguments, listener, place.Program.IsOwn);
            (place.IsReached, place.WasStarted) = (false, true);
            listener.LeaveFile();   // and now it alone listens: when it ends, whoever connects hears at once that nobody is there
            return place.Process;
        }
    }

    /// <inheritdoc/>
    public void Remove(SpawnerSlot slot)
    {
        lock (_lock)
            Remove(_places[slot.Index]);
    }

    /// <inheritdoc/>
    public void AllowConnection(string path)
    {
        // This process may connect to any socket.
    }

    /// <inheritdoc/>
    public int TryConnect(string path, out UnixSocket? socket)
    {
        int error = UnixSocket.TryConnect(path, out socket);
        if (error != 0)
            return error;
        lock (_lock)
        {
            if (_places.Find(place => place.Socket == path) is { } reached)
                reached.IsReached = true;
        }
        return 0;
    }

    /// <inheritdoc/>
    public void RemoveAtEnd(string path)
    {
        lock (_lock)
        {
            if (FileKind.Identity(path) is { } identity)
                _removed.Add((RealPath.Absolute(path), identity, FileKind.IsDirectory(path) ? FileDescriptor.Open(path, OpenMode.ReadOnly) : null));
        }
    }

    /// <inheritdoc/>
    public void Close()
    {
        // This process is trusted: it may go on adding programs and paths.
    }

    /// <summary>How the program in slot <paramref name="index"/> ended, in a few words; null while it runs, and for one that was never started.</summary>
    internal string? EndOf(int index)
    {
        lock (_lock)
            return _places[index].Process?.End;
    }

    /// <summary>Kills the program in slot <paramref name="index"/>, and does not wait for its end.</summary>
    internal void Kill(int index)
    {
        lock (_lock)
        {
            if (_places[index] is { IsRemoved: false, Process: { } process })
                process.Kill(0);
        }
    }

    /// <summary>Ends all programs, which notice that by their connections, and removes all sockets and directories.</summary>
    public void Dispose()
    {
        lock (_lock)
        {
            foreach (Place place in _places)
                Remove(place);
            foreach ((string path, (ulong, ulong) identity, FileDescriptor? directory) in _removed)
            {
                // What has that name now may be another's, and nobody is to take the name meanwhile. Only names in a private directory are taken again: elsewhere they are random, and
                // anybody could hold the lock.
                string parent = Path.GetDirectoryName(path)!;
                using DirectoryLock? others = directory is null || !PrivateDirectory.Is(parent) ? null : DirectoryLock.TryTake(parent, Patience);
                if (FileKind.Identity(path) == identity && directory is null)
                    UnixListener.RemoveStale(path);
                else if (FileKind.Identity(path) == identity)
                    RemoveDirectory(path);
                directory?.Dispose();
            }
            _removed.Clear();
        }
    }

    private static void Remove(Place place)
    {
        if (place.IsRemoved)
            return;
        place.IsRemoved = true;
        // The end of its connection ends it. One that nobody has connected to would wait for a connection: it is killed.
        if (place.IsReached)
            place.Process?.WaitForEnd(Patience);
        place.Process?.Dispose();
        if (place.Program.Socket is { } socket)
            UnixListener.RemoveStale(socket);
        RemoveDirectory(place.Directory);
    }

    private static void RemoveDirectory(string path)
    {
        try
        {
            Directory.Delete(path, recursive: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            s_log.Debug("{Directory} stays: {Error}", path, e.Message);
        }
    }

    private sealed class Place(SpawnerProgram program, string directory)
    {
        public SpawnerProgram Program => program;

        public string Directory => directory;

        public string Socket { get; } = Path.Combine(directory, SocketName);

        public IReadOnlyList<string> Arguments => WasStarted ? program.Arguments : [.. program.Arguments, .. program.FirstArguments];

        public bool WasStarted { get; set; }

        public bool IsReached { get; set; }     // somebody has connected to the process

        public ChildProcess? Process { get; set; }

        public bool IsRemoved { get; set; }
    }
}
