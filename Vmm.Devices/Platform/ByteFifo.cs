namespace Vmm.Devices.Platform;

/// <summary>A first-in first-out buffer of a few bytes, allocated once. Not thread safe.</summary>
internal sealed class ByteFifo(int capacity)
{
    private readonly byte[] _bytes = new byte[capacity];
    private int _first;

    /// <summary>Bytes in it.</summary>
    public int Count { get; private set; }

    /// <summary>Appends <paramref name="value"/>.</summary>
    /// <returns>False when full; the byte is then not stored.</returns>
    public bool TryPush(byte value)
    {
        if (Count == _bytes.Length)
            return false;
        _bytes[(_first + Count++) % _bytes.Length] = value;
        return true;
    }

    /// <summary>The oldest byte, left in place; 0 when empty.</summary>
    public byte Peek() => Count == 0 ? (byte)0 : _bytes[_first];

    /// <summary>Takes the oldest byte out; 0 when empty.</summary>
    public byte Pop()
    {
        byte value = Peek();
        if (Count != 0)
        {
            _first = (_first + 1) % _bytes.Length;
            Count--;
        }
        return value;
    }

    /// <summary>Drops everything.</summary>
    public void Clear() => (_first, Count) = (0, 0);
}
