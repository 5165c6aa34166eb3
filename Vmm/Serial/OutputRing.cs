namespace Vmm.Serial;

/// <summary>Output on its way from vCPU threads to the one thread that writes it out. Thread safe; allocates nothing after it is made.</summary>
internal sealed class OutputRing(WakeUp reader)
{
    /// <summary>How many bytes can wait; a power of two.</summary>
    public const int Capacity = 64 * 1024;

    private readonly Lock _lock = new();
    private readonly byte[] _bytes = new byte[Capacity];
    private uint _first;
    private uint _end;   // both run freely and wrap; their difference is the count
    private bool _readerSleeps;
    private bool _writerWaits;
    private bool _keepLatest;
    private bool _closed;

    private int Count => (int)(_end - _first);

    /// <summary>Appends <paramref name="value"/>, and wakes the reader if it found nothing the last time.</summary>
    /// <returns>False when full. Whoever then makes room is told that somebody waits for it.</returns>
    public bool TryWrite(byte value)
    {
        lock (_lock)
        {
            if (_closed)
                return true;
            if (Count == Capacity)
            {
                if (!_keepLatest)
                {
                    _writerWaits = true;
                    return false;
                }
                _first++;
            }
            _bytes[_end++ % Capacity] = value;
            if (!_readerSleeps)
                return true;
            _readerSleeps = false;
        }
        reader.Signal();
        return true;
    }

    /// <summary>Copies the oldest bytes without taking them out. If there are none, the next write wakes the reader.</summary>
    /// <returns>How many.</returns>
    public int Peek(Span<byte> buffer)
    {
        lock (_lock)
        {
            int count = Math.Min(Count, buffer.Length);
            int beforeWrap = Math.Min(count, Capacity - (int)(_first % Capacity));
            _bytes.AsSpan((int)(_first % Capacity), beforeWrap).CopyTo(buffer);
            _bytes.AsSpan(0, count - beforeWrap).CopyTo(buffer[beforeWrap..]);
            _readerSleeps = count == 0;
            return count;
        }
    }

    /// <summary>Takes the oldest <paramref name="count"/> bytes out, which <see cref="Peek"/> gave.</summary>
    /// <returns>Whether a writer was refused before and has to be told that there is room now.</returns>
    public bool Advance(int count)
    {
        lock (_lock)
        {
            if (!_closed)   // it was emptied meanwhile
                _first += (uint)count;
            return TakeWriterWaits();
        }
    }

    /// <summary>Sets whether a full ring drops its oldest byte for a new one, and not the writer's. The reader must neither be in
    /// between <see cref="Peek"/> and <see cref="Advance"/>, nor expect to be woken while it is set.</summary>
    /// <returns>Whether a writer was refused before and has to be told that there is room now.</returns>
    public bool KeepLatest(bool keep)
    {
        lock (_lock)
        {
            _keepLatest = keep;
            _readerSleeps = false;
            return keep && TakeWriterWaits();
        }
    }

    /// <summary>Drops what is there and everything from now on.</summary>
    /// <returns>Whether a writer was refused before and has to be told that there is room now.</returns>
    public bool Close()
    {
        lock (_lock)
        {
            _closed = true;
            _first = _end;
            return TakeWriterWaits();
        }
    }

    private bool TakeWriterWaits()
    {
        bool waits = _writerWaits;
        _writerWaits = false;
        return waits;
    }
}
