using Vmm.Vhost.Native;

namespace Vmm.Vhost.User.Backend;

/// <summary>A device's inner state on its way through a pipe, on a thread of its own: the front-end may take its time, and has other
/// messages meanwhile (vhost-user.rst, "Migrating back-end state").</summary>
/// <remarks>The front-end shares the pipe's description, and may take O_NONBLOCK away. So the thread polls before each read, which then gives what is there, and before each write of what
/// a pipe that is writable has room for. A front-end that reads or writes the pipe itself at that instant can still block the thread. A blocked thread keeps <see cref="Step"/> bytes once its
/// transfer is disposed of, and there are at most <see cref="MostRunning"/> threads in the process.</remarks>
internal sealed class StateTransfer : IDisposable
{
    private const int Step = 64 << 10;
    private const int MostWritten = 4096;   // PIPE_BUF: a pipe that is writable takes so many bytes at once
    private const int MostRunning = 16;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(1);

    private static int s_running;

    private readonly FileDescriptor _pipe;
    private readonly EventFd _stop = new();
    private readonly Thread _thread;
    private readonly Lock _lock = new();
    private byte[]? _bytes;     // null once nobody wants them
    private int _length;        // of what was read, or is to be written
    private bool _isGood;
    private int _ends;

    private StateTransfer(FileDescriptor pipe, byte[]? state)
    {
        _pipe = pipe;
        IsLoad = state is null;
        (_bytes, _length) = (state ?? [], state?.Length ?? 0);
        _thread = new Thread(Run) { Name = "device state", IsBackground = true };
        Interlocked.Increment(ref s_running);
        try
        {
            NativeThread.Start(_thread);
        }
        catch
        {
            Interlocked.Decrement(ref s_running);
            _stop.Dispose();
            throw;
        }
    }

    /// <summary>Whether this process may begin another.</summary>
    public static bool MayBegin => Volatile.Read(ref s_running) < MostRunning;

    public bool IsLoad { get; }

    /// <summary>What was read, once it is there, until this is disposed of.</summary>
    public ReadOnlySpan<byte> Bytes
    {
        get
        {
            lock (_lock)
                return _bytes.AsSpan(0, _bytes is null ? 0 : _length);
        }
    }

    /// <summary>Begins to write <paramref name="state"/> to <paramref name="pipe"/>, which is closed at its end.</summary>
    /// <exception cref="ErrnoException">The host has no descriptor or no thread for it. The pipe stays the caller's.</exception>
    public static StateTransfer Save(FileDescriptor pipe, byte[] state) => new(pipe, state);

    /// <summary>Begins to read a state from <paramref name="pipe"/>, to its end.</summary>
    /// <exception cref="ErrnoException">The host has no descriptor or no thread for it. The pipe stays the caller's.</exception>
    public static StateTransfer Load(FileDescriptor pipe) => new(pipe, null);

    /// <summary>Waits for the end.</summary>
    /// <returns>Whether all of it went through.</returns>
    public bool Wait(TimeSpan timeout) => _thread.Join(timeout) && _isGood;

    public void Dispose()
    {
        _stop.Signal();
        _thread.Join(s_patience);
        lock (_lock)
            _bytes = null;      // also where the thread is blocked
        LetGo();
    }

    private void Run()
    {
        try
        {
            _pipe.SetNonBlocking();
            _isGood = IsLoad ? Read() : Write();
        }
        catch (Exception e) when (e is IOException or OutOfMemoryException)
        {
            _isGood = false;
        }
        finally
        {
            // The end of the pipe is the end of the state. The pipe may be a pair of sockets of which the front-end has kept this end open (cloud-hypervisor): so the end is
            // sent, as closing alone would not show it.
            _pipe.EndSending();
            _pipe.Dispose();
            Interlocked.Decrement(ref s_running);
            LetGo();
        }
    }

    private bool Write()
    {
        byte[] step = new byte[MostWritten];
        for (int done = 0; done < _length;)
        {
            int count = Math.Min(_length - done, step.Length);
            lock (_lock)
            {
                if (_bytes is null)
                    return false;
                _bytes.AsSpan(done, count).CopyTo(step);
            }
            if (!Wait(PollEvents.Writable))
                return false;
            int result = _pipe.TryWrite(step.AsSpan(0, count));
            if (result > 0)
                done += result;
            else if (result != -Errnos.Eagain)
                return false;
        }
        return true;
    }

    private bool Read()
    {
        byte[] step = new byte[Step];
        while (Wait(PollEvents.Readable))
        {
            int result = _pipe.TryRead(step);
            if (result == 0)
                return true;
            if (result < 0 && result != -Errnos.Eagain)
                return false;
            if (result > 0 && !Add(step.AsSpan(0, result)))
                return false;
        }
        return false;
    }

    // False where that is more than a state may have, or nobody wants it any more.
    private bool Add(ReadOnlySpan<byte> data)
    {
        lock (_lock)
        {
            if (_bytes is null || data.Length > VhostUserDevice.MaxStateSize - _length)
                return false;
            if (data.Length > _bytes.Length - _length)
                Array.Resize(ref _bytes, Math.Clamp(2 * _length, _length + data.Length, VhostUserDevice.MaxStateSize));
            data.CopyTo(_bytes.AsSpan(_length));
            _length += data.Length;
            return true;
        }
    }

    // Called by the thread, and by Dispose: the last of the two closes the event.
    private void LetGo()
    {
        if (Interlocked.Increment(ref _ends) == 2)
            _stop.Dispose();
    }

    // Until that has happened. False when it is to end.
    private bool Wait(PollEvents events)
    {
        while (true)
        {
            Span<PollEntry> entries = [new PollEntry(_pipe, events), new PollEntry(_stop, PollEvents.Readable)];
            Poll.Wait(entries, -1);
            if (entries[1].Happened != PollEvents.None)
                return false;
            if (entries[0].Happened != PollEvents.None)
                return true;
        }
    }
}
