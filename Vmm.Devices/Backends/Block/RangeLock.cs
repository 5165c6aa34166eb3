using Vmm.Vhost;

namespace Vmm.Devices.Backends.Block;

/// <summary>Keeps changes of the same blocks of an image apart: while one is under way, nobody begins another. It is there for changes that begin or
/// end inside a block that can only be written whole (<see cref="UnalignedIo"/>): the rest of the block is read before and written back, and must not
/// change meanwhile. Any thread may use it.</summary>
internal sealed class RangeLock(int unit)
{
    private readonly object _sync = new();
    private (ulong Start, ulong End)[] _held = new (ulong, ulong)[64];
    private int _count;
    private int _waiting;

    /// <summary>Takes the blocks that <paramref name="length"/> bytes at <paramref name="offset"/> touch, if nobody has one of them.</summary>
    public bool TryEnter(ulong offset, ulong length)
    {
        (ulong start, ulong end) = Round(offset, length);
        lock (_sync)
        {
            if (!IsFree(start, end))
                return false;
            Add(start, end);
            return true;
        }
    }

    /// <summary>The same, and waits for them. Whoever has blocks must not wait for what the caller has.</summary>
    public void Enter(ulong offset, ulong length)
    {
        (ulong start, ulong end) = Round(offset, length);
        lock (_sync)
        {
            while (!IsFree(start, end))
            {
                _waiting++;
                Monitor.Wait(_sync);
                _waiting--;
            }
            Add(start, end);
        }
    }

    /// <summary>Gives back what was taken with the same numbers.</summary>
    public void Leave(ulong offset, ulong length)
    {
        (ulong start, ulong end) = Round(offset, length);
        lock (_sync)
        {
            int index = Array.IndexOf(_held, (start, end), 0, _count);
            _held[index] = _held[--_count];
            if (_waiting > 0)
                Monitor.PulseAll(_sync);
        }
    }

    private (ulong Start, ulong End) Round(ulong offset, ulong length) => (Align.Down(offset, (ulong)unit), Align.Up(offset + length, (ulong)unit));

    private bool IsFree(ulong start, ulong end)
    {
        foreach ((ulong heldStart, ulong heldEnd) in _held.AsSpan(0, _count))
        {
            if (start < heldEnd && heldStart < end)
                return false;
        }
        return true;
    }

    private void Add(ulong start, ulong end)
    {
        if (_count == _held.Length)
            Array.Resize(ref _held, 2 * _count);
        _held[_count++] = (start, end);
    }
}
