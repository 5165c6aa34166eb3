using Vmm.Vhost.Native;

namespace Vmm.Devices.Backends.Block;

/// <summary>The io_urings of a disk: one for each queue, made when the disk is opened. A confined process can make no more, because nothing
/// filters what a new one does. A queue takes one when it starts and gives it back when it has stopped.</summary>
internal sealed class UringPool : IDisposable
{
    private readonly Lock _lock = new();
    private readonly Stack<PooledUring> _free = [];
    private bool _isDisposed;

    /// <summary>Makes them.</summary>
    /// <param name="file">The file that they are for.</param>
    /// <param name="count">How many.</param>
    /// <param name="entries">Operations of each at a time.</param>
    /// <exception cref="ErrnoException">The kernel refuses one.</exception>
    public UringPool(FileDescriptor file, int count, int entries)
    {
        try
        {
            for (int i = 0; i < count; i++)
                _free.Push(new PooledUring(file, entries));
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Takes one, which is to be given back by <see cref="Return"/>; null if all are taken.</summary>
    public PooledUring? TryTake()
    {
        lock (_lock)
            return _free.TryPop(out PooledUring? uring) ? uring : null;
    }

    /// <summary>Takes one back. Nothing may be under way on it.</summary>
    public void Return(PooledUring uring)
    {
        lock (_lock)
        {
            if (!_isDisposed)
            {
                _free.Push(uring);
                return;
            }
        }
        uring.Dispose();
    }

    /// <summary>Closes those that are not taken; the others are closed when they come back.</summary>
    public void Dispose()
    {
        lock (_lock)
        {
            _isDisposed = true;
            while (_free.TryPop(out PooledUring? uring))
                uring.Dispose();
        }
    }
}

/// <summary>One of <see cref="UringPool"/>.</summary>
internal sealed class PooledUring : IDisposable
{
    /// <summary>Makes one.</summary>
    /// <exception cref="ErrnoException">The kernel refuses.</exception>
    public PooledUring(FileDescriptor file, int entries)
    {
        try
        {
            Ring = new IoUring(entries, file, Ready);
        }
        catch
        {
            Ready.Dispose();
            throw;
        }
    }

    /// <summary>The ring.</summary>
    public IoUring Ring { get; }

    /// <summary>Signalled when something is done, while <see cref="IoUring.SetNotifications"/> has it so.</summary>
    public EventFd Ready { get; } = new();

    /// <inheritdoc/>
    public void Dispose()
    {
        Ring.Dispose();
        Ready.Dispose();
    }
}
