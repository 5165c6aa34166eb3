namespace Vmm.Vhost.Virtqueue;

/// <summary>The pieces of memory in which some bytes of a request lie, however the driver has cut it up: to go through by foreach, which allocates nothing.
/// Empty buffers are left out.</summary>
/// <param name="buffers">What the device reads of the request, or what it writes.</param>
/// <param name="offset">The first byte.</param>
/// <param name="length">How many; the pieces have fewer where the buffers end before.</param>
public ref struct GuestBufferRange(ReadOnlySpan<GuestBuffer> buffers, ulong offset, ulong length)
{
    private ReadOnlySpan<GuestBuffer> _buffers = buffers;
    private ulong _offset = offset;
    private ulong _length = length;

    /// <summary>The piece.</summary>
    public GuestBuffer Current { get; private set; }

    /// <summary>For foreach.</summary>
    public readonly GuestBufferRange GetEnumerator() => this;

    /// <summary>Goes to the next piece.</summary>
    /// <returns>False if there is none.</returns>
    public bool MoveNext()
    {
        while (_length > 0 && !_buffers.IsEmpty)
        {
            GuestBuffer buffer = _buffers[0];
            _buffers = _buffers[1..];
            if (_offset >= buffer.Length)
            {
                _offset -= buffer.Length;
                continue;
            }
            ulong count = Math.Min(buffer.Length - _offset, _length);
            Current = new GuestBuffer(buffer.Address + (nint)_offset, (uint)count);
            _offset = 0;
            _length -= count;
            return true;
        }
        return false;
    }
}
