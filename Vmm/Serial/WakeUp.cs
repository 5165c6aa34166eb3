using Vmm.Vhost.Native;

namespace Vmm.Serial;

/// <summary>Wakes a thread out of poll(2). Unlike a bare <see cref="EventFd"/> it may be signalled while, and after, it is disposed.</summary>
internal sealed class WakeUp : IDisposable
{
    private readonly Lock _lock = new();
    private readonly EventFd _event = new();
    private bool _disposed;

    /// <summary>What the thread polls, until disposed.</summary>
    public FileDescriptor Descriptor => _event;

    /// <summary>Wakes the thread, or lets its next poll return at once. Without effect once disposed.</summary>
    public void Signal()
    {
        lock (_lock)
        {
            if (!_disposed)
                _event.Signal();
        }
    }

    /// <summary>Forgets signals so far.</summary>
    /// <returns>How many there were.</returns>
    public ulong Drain() => _event.Drain();

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (_lock)
        {
            _disposed = true;
            _event.Dispose();
        }
    }
}
