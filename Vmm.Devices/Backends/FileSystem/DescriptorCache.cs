using Vmm.Vhost.Native;

namespace Vmm.Devices.Backends.FileSystem;

/// <summary>Files of the <see cref="InodeTable"/> that have a descriptor (<see cref="Inode.Path"/>). When there are too many, those are closed that were not used for some time.
/// The table's lock protects it. The caller closes what is let go of, after it has released that lock.</summary>
/// <param name="most">How many may be open, besides those that must.</param>
internal sealed class DescriptorCache(int most)
{
    private readonly List<Inode> _open = [];
    private int _hand;

    /// <summary>How many there are.</summary>
    public int Count => _open.Count;

    /// <summary>Adds a file that is open now.</summary>
    /// <param name="inode">The file; it has no descriptor yet.</param>
    /// <param name="path">Its descriptor, open by O_PATH; the cache's from now on.</param>
    /// <param name="released">Gets those for which there is no room any more.</param>
    public void Add(Inode inode, FileDescriptor path, ref ReleasedDescriptors released)
    {
        inode.Path = path;
        inode.WasUsed = true;
        inode.CacheIndex = _open.Count;
        _open.Add(inode);
        if (_open.Count > most)
            Evict(most - most / 8, ref released);
    }

    /// <summary>Lets go of a file's descriptor, if it has one.</summary>
    public void Remove(Inode inode, ref ReleasedDescriptors released)
    {
        if (inode.CacheIndex < 0)
            return;
        Inode last = _open[^1];
        _open[inode.CacheIndex] = last;
        last.CacheIndex = inode.CacheIndex;
        _open.RemoveAt(_open.Count - 1);
        inode.CacheIndex = -1;
        released.Add(inode.Path!);
        inode.Path = null;
    }

    /// <summary>Lets go of half of them, because this process can have no more descriptors.</summary>
    /// <returns>Whether there was one that may be closed.</returns>
    public bool Shrink(ref ReleasedDescriptors released)
    {
        int before = _open.Count;
        Evict(before / 2, ref released);
        return _open.Count < before;
    }

    // Spares a file once if it was used since the last round, and always if it is pinned.
    private void Evict(int target, ref ReleasedDescriptors released)
    {
        for (int looked = 2 * _open.Count; looked > 0 && _open.Count > target; looked--)
        {
            if (_hand >= _open.Count)
                _hand = 0;
            Inode inode = _open[_hand];
            if (inode.IsPinned || inode.WasUsed)
            {
                inode.WasUsed = false;
                _hand++;
                continue;
            }
            Remove(inode, ref released);
        }
    }
}
