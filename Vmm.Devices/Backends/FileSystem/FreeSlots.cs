using System.Collections;

namespace Vmm.Devices.Backends.FileSystem;

/// <summary>The slots of a <see cref="SessionTable"/> that are free, each once, however often it is given back: records in memory that others write to may share slots.</summary>
internal sealed class FreeSlots
{
    private readonly Stack<int> _slots = [];
    private readonly BitArray _isFree = new(0);

    /// <summary>How many there are.</summary>
    public int Count => _slots.Count;

    /// <summary>Adds a slot, if it is not free already.</summary>
    public void Push(int slot)
    {
        if (slot >= _isFree.Length)
            _isFree.Length = Math.Max(slot + 1, 2 * _isFree.Length);
        if (_isFree[slot])
            return;
        _isFree[slot] = true;
        _slots.Push(slot);
    }

    /// <summary>Takes one out.</summary>
    /// <returns>False if there is none.</returns>
    public bool TryPop(out int slot)
    {
        if (!_slots.TryPop(out slot))
            return false;
        _isFree[slot] = false;
        return true;
    }

    /// <summary>None is free.</summary>
    public void Clear()
    {
        _slots.Clear();
        _isFree.SetAll(false);
    }
}
