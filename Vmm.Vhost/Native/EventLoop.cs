namespace Vmm.Vhost.Native;

/// <summary>One thread that waits for many descriptors and calls back when one is readable: for what happens rarely (a configuration
/// changed, a connection broke), never for what a data plane does. The thread begins with the first descriptor.</summary>
/// <param name="name">The thread's name; the kernel shows its first 15 characters.</param>
public sealed class EventLoop(string name = "device events") : IDisposable
{
    private static readonly BoundedLog s_log = new("Vmm.Vhost.Native");

    private readonly Lock _lock = new();
    private readonly EventFd _wake = new();
    private readonly List<Entry> _entries = [];
    private Thread? _thread;
    private bool _stopping;

    /// <summary>Calls <paramref name="ready"/> whenever <paramref name="fd"/> is readable, hung up or in error. It must make that state go
    /// away (read, drain) or remove the descriptor. One that throws is not called again.</summary>
    /// <param name="fd">The descriptor.</param>
    /// <param name="ready">What is called.</param>
    /// <param name="wanted">What to wait for; with <see cref="PollEvents.None"/> only for a hang-up or an error.</param>
    /// <param name="failed">Called, with the reason, when <paramref name="ready"/> has thrown and is given up: to end what depends on it.</param>
    /// <exception cref="ObjectDisposedException">The loop was stopped, or <paramref name="fd"/> is closed.</exception>
    public void Add(FileDescriptor fd, Action ready, PollEvents wanted = PollEvents.Readable, Action<string>? failed = null)
    {
        ArgumentNullException.ThrowIfNull(fd);
        ArgumentNullException.ThrowIfNull(ready);
        ObjectDisposedException.ThrowIf(fd.IsClosed, fd);
        lock (_lock)
        {
            ObjectDisposedException.ThrowIf(_stopping, this);
            if (_thread is null)
            {
                var thread = new Thread(Run, maxStackSize: 256 * 1024) { Name = name, IsBackground = true };
                NativeThread.Start(thread);
                _thread = thread;
            }
            _entries.Add(new Entry(fd, ready, wanted, failed));   // last, so that a failed call leaves nothing behind
            _wake.Signal();
        }
    }

    /// <summary>Forgets <paramref name="fd"/>; before it is disposed. A call back that has begun may still be running when this returns,
    /// so that a caller may hold the lock which that call waits for.</summary>
    public void Remove(FileDescriptor fd)
    {
        lock (_lock)
        {
            _entries.RemoveAll(entry => ReferenceEquals(entry.Descriptor, fd));
            if (!_wake.IsClosed)
                _wake.Signal();
        }
    }

    /// <summary>Ends the thread as soon as the call back that has begun, if one has, returns; without waiting for it, so that a caller
    /// may hold the lock which that call waits for. Descriptors need not be removed before they are disposed of after this.</summary>
    public void Stop()
    {
        lock (_lock)
        {
            _stopping = true;
            if (_wake.IsClosed)
                return;
            _wake.Signal();
            if (_thread is null)
                _wake.Dispose();
        }
    }

    /// <summary>Ends the thread, and waits until it has ended; in a call-back it ends when that has returned.</summary>
    public void Dispose()
    {
        Stop();
        if (_thread is not null && _thread != Thread.CurrentThread)
            _thread.Join();
    }

    private void Run()
    {
        while (true)
        {
            Entry[] entries;
            lock (_lock)
            {
                if (_stopping)
                {
                    _wake.Dispose();
                    return;
                }
                entries = [.. _entries];
            }
            var waiting = new PollEntry[entries.Length + 1];
            for (int i = 0; i < entries.Length; i++)
                waiting[i] = new PollEntry(entries[i].Descriptor, entries[i].Wanted);
            waiting[^1] = new PollEntry(_wake, PollEvents.Readable);
            Poll.Wait(waiting, timeout: -1);
            _wake.Drain();
            for (int i = 0; i < entries.Length; i++)
            {
                if (waiting[i].Happened == PollEvents.None || !IsStillThere(entries[i]))
                    continue;
                if (waiting[i].Happened == PollEvents.Invalid)
                    GiveUp(entries[i], "its descriptor was closed before it was removed");
                else
                    Call(entries[i]);
            }
        }
    }

    private void Call(Entry entry)
    {
        try
        {
            entry.Ready();
        }
        catch (IOException e)
        {
            GiveUp(entry, e.Message);
        }
        catch (Exception e)
        {
            s_log.Error(e);   // a mistake in the call-back: where it is
            GiveUp(entry, e.Message);
        }
    }

    // Whoever waits for this descriptor hears no more of it; the others do.
    private void GiveUp(Entry entry, string reason)
    {
        s_log.Error("{Thread}: {Error}: the event is given up", name, reason);
        Remove(entry.Descriptor);
        try
        {
            entry.Failed?.Invoke(reason);
        }
        catch (Exception e)
        {
            s_log.Error(e, "{Thread}: {Error}", name, e.Message);
        }
    }

    private bool IsStillThere(Entry entry)
    {
        lock (_lock)
            return !_stopping && _entries.Contains(entry);   // what a loop that was stopped waited for may be closed already
    }

    private sealed record Entry(FileDescriptor Descriptor, Action Ready, PollEvents Wanted, Action<string>? Failed);
}
