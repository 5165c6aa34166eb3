namespace Vmm.Devices.Backends.FileSystem;

/// <summary>The openings that the guest has, by the numbers that it was given. Thread-safe.</summary>
internal sealed class HandleTable(InodeTable inodes)
{
    private readonly Lock _lock = new();
    private readonly Dictionary<ulong, OpenFile> _files = [];
    private ulong _last;

    /// <summary>How many there are.</summary>
    public int Count
    {
        get
        {
            lock (_lock)
                return _files.Count;
        }
    }

    /// <summary>A new number.</summary>
    public ulong Next() => Interlocked.Increment(ref _last);

    /// <summary>Adds an opening.</summary>
    public void Add(OpenFile file)
    {
        inodes.Add(file.Inode, file);
        lock (_lock)
            _files.Add(file.Handle, file);
    }

    /// <summary>The opening with a number; null if there is none.</summary>
    public OpenFile? Find(ulong handle)
    {
        lock (_lock)
            return _files.GetValueOrDefault(handle);
    }

    /// <summary>Ends an opening. What works with it goes on until it is done.</summary>
    /// <returns>Whether there was one.</returns>
    public bool Remove(ulong handle)
    {
        OpenFile? file;
        lock (_lock)
        {
            if (!_files.Remove(handle, out file))
                return false;
        }
        inodes.Remove(file.Inode, file);
        file.Descriptor.Dispose();
        return true;
    }

    /// <summary>Ends all of them.</summary>
    public void Clear()
    {
        OpenFile[] files;
        lock (_lock)
        {
            files = [.. _files.Values];
            _files.Clear();
        }
        foreach (OpenFile file in files)
        {
            inodes.Remove(file.Inode, file);
            file.Descriptor.Dispose();
        }
    }
}
