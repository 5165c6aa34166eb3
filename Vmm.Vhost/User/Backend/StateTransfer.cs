using Vmm.Vhost.Native;

namespace Vmm.Vhost.User.Backend;

/// <summary>A device's inner state on its way through a pipe, on a thread of its own: the front-end may take its time, and has other
/// messages meanwhile (vhost-user.rst, "Migrating back-end state").</summary>
internal sealed class StateTransfer : IDisposable
{
    private const int Step = 1 << 20;

    private const int MostRunning = 16;     // in this process: those that wait for a front-end that has made its pipe blocking count, too

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(1);

    private static int s_running;

    private readonly FileDescriptor _pipe;
    private readonly EventFd _stop = new();
    private readonly Thread _thread;
    private bool _isGood;
    private int _ends;

    private StateTransfer(FileDescriptor pipe, byte[]? state)
    {
        _pipe = pipe;
        IsLoad = state is null;
        Bytes = state ?? [];
        _thread = new Thread(Run) { Name = "device state", IsBackground = true };
        try
        {
            NativeThread.Start(_thread);
        }
        catch
        {
            _stop.Dispose();
            throw;
        }
    }

    /// <summary>Whether this process may begin another.</summary>
    public static bool MayBegin => Volatile.Read(ref s_running) < MostRunning;

    public bool IsLoad { get; }

    /// <summary>What was read, once it is there.</summary>
    public byte[] Bytes { get; private set; }

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
        // The front-end shares the pipe's description, and may have made it blocking meanwhile: then the thread waits in read(2) or write(2) until the other end is closed.
        _thread.Join(s_patience);
        LetGo();
    }

    private void Run()
    {
        Interlocked.Increment(ref s_running);
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
        ReadOnlySpan<byte> rest = Bytes;
        while (!rest.IsEmpty)
        {
            int result = _pipe.TryWrite(rest[..Math.Min(rest.Length, Step)]);
            if (result > 0)
                rest = rest[result..];
            else if (result != -Errnos.Eagain || !Wait(PollEvents.Writable))
                return false;
        }
        return true;
    }

    private bool Read()
    {
        using var received = new MemoryStream();
        byte[] step = new byte[Step];
        while (received.Length <= VhostUserDevice.MaxStateSize)
        {
            int result = _pipe.TryRead(step);
            if (result == 0)
            {
                Bytes = received.ToArray();
                return true;
            }
            if (result > 0)
                received.Write(step, 0, result);
            else if (result != -Errnos.Eagain || !Wait(PollEvents.Readable))
                return false;
        }
        return false;
    }

    // The thread and who made this: the last of the two.
    private void LetGo()
    {
        if (Interlocked.Increment(ref _ends) == 2)
            _stop.Dispose();
    }

    // False when it is to end.
    private bool Wait(PollEvents events)
    {
        Span<PollEntry> entries = [new PollEntry(_pipe, events), new PollEntry(_stop, PollEvents.Readable)];
        Poll.Wait(entries, -1);
        return entries[1].Happened == PollEvents.None;
    }
}
