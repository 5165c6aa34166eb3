using Vmm.Vhost;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Spawning;

/// <summary>Has it done by a process that was started before this one was confined (<see cref="SpawnerServer"/>), and that ends with this one, however
/// it ends.</summary>
public sealed class RemoteSpawner : ISpawner
{
    private const int Patience = 30_000;        // milliseconds for an answer: programs may take some time to load, and 2 s to be killed
    private const int EndPatience = 5000;       // milliseconds until it has removed all

    private static readonly BoundedLog s_log = new("Vmm.Devices.Spawning");

    private readonly Lock _lock = new();
    private readonly ChildProcess? _process;
    private readonly SpawnerChannel _channel;
    private readonly int _patience = Patience;
    private readonly Dictionary<string, int> _paths = [];
    private int _slots;
    private int _asked;         // the number of the last request
    private int _answered;      // that of the last one that was answered
    private bool _isDisposed;

    /// <summary>Starts the process.</summary>
    /// <param name="program">A program that runs a <see cref="SpawnerServer"/> on the socket that it inherits as descriptor
    /// <see cref="ChildProcess.InheritedNumber"/>.</param>
    /// <param name="arguments">Its arguments.</param>
    /// <exception cref="ErrnoException">It cannot be started.</exception>
    public RemoteSpawner(string program, IReadOnlyList<string> arguments)
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using (theirs)
        {
            _channel = new SpawnerChannel(ours);
            try
            {
                // Nobody reads what it says here: what it has to say goes where our own errors go.
                _process = ChildProcess.Start(program, arguments, theirs, sharesErrors: true);
                _process.Output.Dispose();
            }
            catch
            {
                ours.Dispose();
                throw;
            }
        }
    }

    /// <summary>Uses a spawner at the other end of <paramref name="socket"/>, which belongs to it from now on, and waits for each of its answers for
    /// <paramref name="patience"/> milliseconds.</summary>
    internal RemoteSpawner(UnixSocket socket, int patience = Patience) => (_channel, _patience) = (new SpawnerChannel(socket), patience);

    /// <summary>The spawner's process id; 0 if it is not this process's child.</summary>
    public int ProcessId => _process?.Id ?? 0;

    /// <inheritdoc/>
    public SpawnerSlot Add(SpawnerProgram program)
    {
        lock (_lock)
        {
            SpawnerMessage answer = Ask(SpawnerRequest.Add, 0, SpawnerServer.Format(program));
            _paths[answer.Text] = answer.Number;
            return new SpawnerSlot(_slots++, answer.Text);
        }
    }

    /// <inheritdoc/>
    public IStartedProcess Start(SpawnerSlot slot)
    {
        SpawnerMessage answer = Ask(SpawnerRequest.Start, slot.Index, descriptors: 2);
        return new RemoteProcess(this, slot.Index, answer.Number, answer.Descriptors[0], answer.Descriptors[1]);
    }

    /// <inheritdoc/>
    public void Remove(SpawnerSlot slot)
    {
        try
        {
            Ask(SpawnerRequest.Remove, slot.Index);
        }
        catch (IOException e)
        {
            s_log.Debug("{Path} stays: {Error}", slot.SocketPath, e.Message);
        }
    }

    /// <inheritdoc/>
    public void AllowConnection(string path)
    {
        lock (_lock)
            _paths[path] = Ask(SpawnerRequest.AllowConnection, 0, path).Number;
    }

    /// <inheritdoc/>
    public int TryConnect(string path, out UnixSocket? socket)
    {
        lock (_lock)
        {
            socket = null;
            if (!_paths.TryGetValue(path, out int number))
                return Errnos.Eperm;
            try
            {
                SpawnerMessage answer = Ask(SpawnerRequest.Connect, number, descriptors: 1);
                using FileDescriptor descriptor = answer.Descriptors[0];    // no more than a name for it once it is adopted
                socket = UnixSocket.Adopt(descriptor);
                return 0;
            }
            catch (ErrnoException e) when (e.Errno is not (Errnos.Epipe or Errnos.Etimedout))
            {
                return e.Errno;
            }
        }
    }

    /// <inheritdoc/>
    public void RemoveAtEnd(string path) => Ask(SpawnerRequest.RemoveAtEnd, 0, path);

    /// <inheritdoc/>
    public void Close() => Ask(SpawnerRequest.Close, 0);

    /// <summary>Ends the process, and waits until it has removed what it was to remove.</summary>
    public void Dispose()
    {
        lock (_lock)
        {
            if (_isDisposed)
                return;
            _isDisposed = true;
            _channel.Dispose();
        }
        if (_process is null)
            return;
        // A confined process can see the end of another one, but not kill it.
        if (Poll.Wait([new PollEntry(_process.Ended, PollEvents.Readable)], EndPatience) == 0)
            s_log.Warn("the process that starts daemons (process {Id}) has not ended yet", _process.Id);
        _process.Dispose();
    }

    // The answer's error is thrown.
    private SpawnerMessage Ask(SpawnerRequest request, int number, string text = "", int descriptors = 0)
    {
        lock (_lock)
        {
            ObjectDisposedException.ThrowIf(_isDisposed, this);
            SpawnerMessage answer = Exchange(request, number, text);
            if (answer.Kind == 0 && answer.Descriptors.Count == descriptors)
                return answer;
            answer.Descriptors.ForEach(descriptor => descriptor.Dispose());
            throw answer.Kind == 0
                ? new ErrnoException($"the process that starts daemons sends {answer.Descriptors.Count} descriptors, not {descriptors}", Errnos.Emfile)
                : ErrnoException.FromElsewhere(answer.Text, answer.Kind);
        }
    }

    // Sends a request and waits for its answer. If the spawner did not answer the request before, nothing more is sent until that answer is there: a spawner
    // that is held up would do all requests at once later. The late answer is dropped with its descriptors, and not waited for again.
    private SpawnerMessage Exchange(SpawnerRequest request, int number, string text)
    {
        if (_answered != _asked)
            Receive(0).Descriptors.ForEach(descriptor => descriptor.Dispose());
        Send(request, number, text);
        return Receive(_patience);
    }

    private SpawnerMessage Receive(int patience)
    {
        if (!_channel.TryReceive(out SpawnerMessage answer, patience))
        {
            throw _channel.HasEnded
                ? Gone()
                : ErrnoException.FromElsewhere(
                    $"the process that starts daemons and connects to sockets has not answered within {_patience / 1000.0:0.###} s", Errnos.Etimedout);
        }
        if (answer.Sequence == _asked)
        {
            _answered = _asked;
            return answer;
        }
        answer.Descriptors.ForEach(descriptor => descriptor.Dispose());
        throw new ErrnoException($"the process that starts daemons answers request {answer.Sequence}, not {_asked}", Errnos.Eproto);
    }

    private void Send(SpawnerRequest request, int number, string text)
    {
        try
        {
            _channel.Send(_asked + 1, (int)request, number, text);
            _asked++;
        }
        catch (ErrnoException)
        {
            throw Gone();
        }
    }

    private static ErrnoException Gone() =>
        ErrnoException.FromElsewhere("the process that starts daemons and connects to sockets has ended: restart vmm", Errnos.Epipe);

    private sealed class RemoteProcess(RemoteSpawner spawner, int slot, int id, FileDescriptor output, FileDescriptor ended) : IStartedProcess
    {
        private string? _end;

        public int Id => id;

        public FileDescriptor Output => output;

        public FileDescriptor Ended => ended;

        public string? End => _end ?? (HasEnded(0) ? _end = AskForEnd() : null);

        public bool WaitForEnd(int milliseconds) => HasEnded(milliseconds) && End is not null;

        public bool Kill(int milliseconds)
        {
            if (End is not null)
                return true;
            try
            {
                spawner.Ask(SpawnerRequest.Kill, slot);
            }
            catch (IOException e)
            {
                s_log.Debug("process {Id} is not killed: {Error}", id, e.Message);
            }
            return WaitForEnd(milliseconds);
        }

        public void Dispose()
        {
            output.Dispose();
            ended.Dispose();
        }

        private bool HasEnded(int milliseconds) =>
            _end is not null || Poll.Wait([new PollEntry(ended, PollEvents.Readable)], milliseconds) > 0;

        private string AskForEnd()
        {
            try
            {
                return spawner.Ask(SpawnerRequest.GetEnd, slot).Text is { Length: > 0 } end ? end : "a status that is not known";
            }
            catch (IOException)
            {
                return "a status that is not known";
            }
        }
    }
}
