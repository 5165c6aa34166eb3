using System.Numerics;
using System.Text;

namespace Vmm.Devices;

/// <summary>Bytes that wait, in the order in which they came. Takes memory as it needs it, up to a limit. Not thread-safe.</summary>
/// <param name="capacity">The most bytes it holds; a power of two from 4096 on.</param>
/// <exception cref="ArgumentOutOfRangeException">The capacity is another number.</exception>
public sealed class ByteQueue(int capacity)
{
    private const int FirstSize = 4096;

    private readonly int _capacity = capacity >= FirstSize && BitOperations.IsPow2(capacity)
        ? capacity
        : throw new ArgumentOutOfRangeException(nameof(capacity), capacity, $"capacity must be a power of two from {FirstSize} on");

    private byte[] _buffer = [];
    private int _start;

    /// <summary>How many bytes wait.</summary>
    public int Count { get; private set; }

    /// <summary>How many more there is room for.</summary>
    public int Room => _capacity - Count;

    /// <summary>The bytes that have waited longest; all of them, or those up to the end of the buffer.</summary>
    public ReadOnlySpan<byte> First => _buffer.AsSpan(_start, Math.Min(Count, _buffer.Length - _start));

    /// <summary>Adds <paramref name="data"/>.</summary>
    /// <exception cref="ArgumentOutOfRangeException">It is more than there is <see cref="Room"/> for.</exception>
    public void Add(ReadOnlySpan<byte> data)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(data.Length, Room, nameof(data));
        if (data.IsEmpty)
            return;
        if (Count + data.Length > _buffer.Length)
            Grow(Count + data.Length);
        int end = (_start + Count) & (_buffer.Length - 1);
        int first = Math.Min(data.Length, _buffer.Length - end);
        data[..first].CopyTo(_buffer.AsSpan(end));
        data[first..].CopyTo(_buffer);
        Count += data.Length;
    }

    /// <summary>Adds <paramref name="data"/>, of which there may be any amount, and drops what has waited longest to make room.</summary>
    public void AddLatest(ReadOnlySpan<byte> data)
    {
        if (data.Length > _capacity)
            data = data[^_capacity..];
        Remove(Math.Max(0, data.Length - Room));
        Add(data);
    }

    /// <summary>Removes the first <paramref name="count"/> bytes.</summary>
    public void Remove(int count)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(count, Count, nameof(count));
        Count -= count;
        _start = Count == 0 ? 0 : (_start + count) & (_buffer.Length - 1);
    }

    /// <summary>All that wait, as UTF-8; they go on waiting.</summary>
    public string ToText()
    {
        byte[] all = new byte[Count];
        ReadOnlySpan<byte> first = First;
        first.CopyTo(all);
        _buffer.AsSpan(0, Count - first.Length).CopyTo(all.AsSpan(first.Length));
        return Encoding.UTF8.GetString(all);
    }

    private void Grow(int needed)
    {
        int size = Math.Max(FirstSize, _buffer.Length);
        while (size < needed)
            size *= 2;
        byte[] larger = new byte[size];
        ReadOnlySpan<byte> first = First;
        first.CopyTo(larger);
        _buffer.AsSpan(0, Count - first.Length).CopyTo(larger.AsSpan(first.Length));
        (_buffer, _start) = (larger, 0);
    }
}
