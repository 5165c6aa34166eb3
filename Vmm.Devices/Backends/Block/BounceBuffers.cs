using Vmm.Vhost.Native;

namespace Vmm.Devices.Backends.Block;

/// <summary>Buffers of our own for the data of requests whose buffers cannot be used as they are. The process has a small number of them
/// (4 MiB), whatever the number of rings and requests; what gets none waits in its ring. Each ring has one more that nobody else takes, so
/// that it waits only for a request of its own. For the ring's thread only.</summary>
internal sealed class BounceBuffers : IDisposable
{
    /// <summary>Bytes of each.</summary>
    public const int Size = 64 * 1024;

    /// <summary>How many the rings share.</summary>
    public const int SharedCount = 64;

    private static readonly Lock s_lock = new();
    private static readonly NativeBuffer[] s_free = new NativeBuffer[SharedCount];
    private static int s_freeCount;
    private static int s_made;

    private NativeBuffer? _own;
    private bool _isOwnTaken;

    /// <summary>How many of the shared ones exist, for tests.</summary>
    internal static int Made => Volatile.Read(ref s_made);

    /// <summary>Takes a buffer.</summary>
    /// <returns>Null if there is none: a request of this ring has one, and gives it back.</returns>
    public NativeBuffer? TryTake()
    {
        if (!_isOwnTaken)
        {
            _isOwnTaken = true;
            return _own ??= Make();
        }
        lock (s_lock)
        {
            if (s_freeCount > 0)
                return s_free[--s_freeCount];
            if (s_made == SharedCount)
                return null;
            s_made++;
        }
        return Make();
    }

    /// <summary>Gives a buffer back.</summary>
    public void Return(NativeBuffer buffer)
    {
        if (buffer == _own)
        {
            _isOwnTaken = false;
            return;
        }
        lock (s_lock)
            s_free[s_freeCount++] = buffer;
    }

    /// <summary>Frees the ring's own buffer. All were given back.</summary>
    public void Dispose() => _own?.Dispose();

    private static NativeBuffer Make() => new(Size, alignment: 4096);
}
