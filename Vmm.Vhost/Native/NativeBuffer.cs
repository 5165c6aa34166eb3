using System.Runtime.InteropServices;

namespace Vmm.Vhost.Native;

/// <summary>Zeroed memory outside the garbage collector's heap, which does not move: for what the kernel works on while nobody waits.</summary>
public sealed unsafe class NativeBuffer : SafeHandle
{
    private readonly nuint _size;

    /// <summary>Allocates <paramref name="size"/> bytes.</summary>
    /// <param name="size">Bytes, at least 1.</param>
    /// <param name="alignment">Of its address; a power of two.</param>
    /// <exception cref="OutOfMemoryException">There are none.</exception>
    public NativeBuffer(int size, int alignment = 16)
        : base(0, ownsHandle: true)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(size);
        _size = (nuint)size;
        void* memory = NativeMemory.AlignedAlloc(_size, (nuint)alignment);
        NativeMemory.Clear(memory, _size);
        SetHandle((nint)memory);
    }

    /// <inheritdoc/>
    public override bool IsInvalid => handle == 0;

    /// <summary>Where it begins. Valid until disposed.</summary>
    /// <exception cref="ObjectDisposedException">It is disposed.</exception>
    public nint Address
    {
        get
        {
            ObjectDisposedException.ThrowIf(IsClosed, this);
            return handle;
        }
    }

    /// <summary>Its size in bytes.</summary>
    public int Size => (int)_size;

    /// <summary>All of it as an array of <typeparamref name="T"/>. Valid until disposed.</summary>
    /// <exception cref="ObjectDisposedException">It is disposed.</exception>
    // SAFETY: exactly the memory that was allocated; its size was an int.
    public Span<T> AsSpan<T>()
        where T : unmanaged => new((void*)Address, (int)(_size / (nuint)sizeof(T)));

    /// <inheritdoc/>
    protected override bool ReleaseHandle()
    {
        NativeMemory.AlignedFree((void*)handle);
        return true;
    }
}
