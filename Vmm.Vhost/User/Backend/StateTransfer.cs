using Vmm.Vhost.Native;

namespace Vmm.Vhost.User.Backend;

/// <summary>A device's inner state on its way through a pipe, on a thread of its own: the front-end may take its time, and has other
/// messages meanwhile (vhost-user.rst, "Migrating back-end state").</summary>
internal sealed class StateTransfer : IDisposable
{
    private const int Step = 1 << 20;

    private readonly FileDescriptor _pipe;
    private readonly EventFd _stop = new();
    private readonly Thread _thread;
    private bool _isGood;

    private StateTransfer(FileDescriptor pipe, byte[]? state)
    {
        _pipe = pipe;
        IsLoad = state is null;
        Bytes = state ?? [];
        _thread = new Thread(Run) { Name = "device state", IsBackground = true };
        NativeThread.Start(_thread);
    }

    public bool IsLoad { get; }

    /// <summary>What was read, once it is there.</summary>
    public byte[] Bytes { get; private set; }

    /// <summary>Begins to write <paramref name="state"/> to <paramref name="pipe"/>, which is closed at its end.</summary>
    public static StateTransfer Save(FileDescriptor pipe, byte[] state) => new(pipe, state);

    /// <summary>Begins to read a state from <paramref name="pipe"/>, to its end.</summary>
    public static StateTransfer Load(FileDescriptor pipe) => new(pipe, null);

    /// <summary>Waits for the end.</summary>
    /// <returns>Whether all of it went through.</returns>
    public bool Wait(TimeSpan timeout) => _thread.Join(timeout) && _isGood;

    public void Dispose()
    {
        _stop.Signal();
        _thread.Join();
        _stop.Dispose();
    }

    private void Run()
    {
        try
        {
            _pipe.SetNonBlocking();
            _isGood = IsLoad ? Read() : Write();
        }
        catch (IOException)
        {
            _isGood = false;
        }
        finally
        {
            // The end of the pipe is the end of the state.
            _pipe.Dispose();
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

    // False when it is to end.
    private bool Wait(PollEvents events)
    {
        Span<PollEntry> entries = [new PollEntry(_pipe, events), new PollEntry(_stop, PollEvents.Readable)];
        Poll.Wait(entries, -1);
        return entries[1].Happened == PollEvents.None;
    }
}
