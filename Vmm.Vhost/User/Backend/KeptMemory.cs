using Vmm.Vhost.Native;

namespace Vmm.Vhost.User.Backend;

/// <summary>Memory of a device's own that its front-end keeps, behind the in-flight log: the next process finds it as this one has left it, at
/// whatever instant it ended. Whoever has it may have written anything into it.</summary>
public sealed unsafe class KeptMemory
{
    private readonly MemoryMapping _mapping;
    private readonly ulong _start;
    private readonly int _length;
    private volatile bool _isGone;

    internal KeptMemory(MemoryMapping mapping, ulong start, int length) => (_mapping, _start, _length) = (mapping, start, length);

    /// <summary>The bytes; zero where nobody has written. Not to be used once the device was told that they are gone.</summary>
    /// <exception cref="ObjectDisposedException">They are gone.</exception>
    public Span<byte> Bytes
    {
        get
        {
            ObjectDisposedException.ThrowIf(_isGone, this);
            // SAFETY: the range lies in the mapping, which is held until the device was told that it is gone.
            return new Span<byte>(_mapping.Pointer + _start, _length);
        }
    }

    internal void End() => _isGone = true;
}
