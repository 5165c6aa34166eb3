using Vmm.Vhost.Native;
using Vmm.Vhost.User.Backend;

namespace Vmm.Devices.Backends;

/// <summary>Keeps one turn of a ring from lasting for ever: a driver that adds requests as fast as they are worked could otherwise keep its
/// ring from being stopped. What is left over is worked in the next turn, at once.</summary>
internal sealed class WorkLimit : IDisposable
{
    private const int Least = 64;

    private EventFd? _again;
    private int _left;
    private bool _isOver;

    /// <summary>For <see cref="IRingHandler.Ready"/>: readable, when the last turn ended here; null otherwise.</summary>
    public FileDescriptor? Ready
    {
        get
        {
            if (!_isOver)
                return null;
            if (_again is null)
            {
                _again = new EventFd();
                _again.Signal();    // for good
            }
            return _again;
        }
    }

    /// <summary>A turn of <paramref name="ring"/> begins: as many requests as it can hold, twice.</summary>
    public void Begin(BackendRing ring)
    {
        _left = Math.Max(Least, 2 * ring.Size);
        _isOver = false;
    }

    /// <summary>Whether one more request may be worked in this turn.</summary>
    public bool Allows()
    {
        _isOver = _left-- <= 0;
        return !_isOver;
    }

    /// <inheritdoc/>
    public void Dispose() => _again?.Dispose();
}
