namespace Vmm.Devices.Backends.FileSystem;

/// <summary>The openings that the guest has, by the numbers that it was given. Thread-safe.</summary>
internal sealed class HandleTable(InodeTable inodes)
{
    private readonly Lock _lock = new();
    private readonly Dictionary<ulong, OpenFile> _files = [];
    private readonly Dictionary<ulong, ulong> _restored = [];       // by the request by which they were opened
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

    /// <summary>Where openings are written down for a process after this one; null for nowhere.</summary>
    public SessionTable? Session { get; private set; }

    /// <summary>Writes all openings down, and from now on each that comes.</summary>
    public void WriteTo(SessionTable? session)
    {
        lock (_lock)
        {
            Session = session;
            foreach (OpenFile file in _files.Values)
                file.Slot = session?.Add(file) ?? -1;
        }
    }

    /// <summary>Writes all openings down as they are now.</summary>
    public void WriteState(SessionTable state)
    {
        lock (_lock)
        {
            foreach (OpenFile file in _files.Values)
                state.Add(file);
        }
    }

    /// <summary>Goes on with openings that were written down; their numbers are not given out again.</summary>
    /// <param name="files">The openings.</param>
    /// <param name="last">The last number that was given out.</param>
    /// <param name="session">Where they stand, and others will.</param>
    public void Restore(IEnumerable<OpenFile> files, ulong last, SessionTable? session)
    {
        lock (_lock)
        {
            Session = session;
            _last = Math.Max(_last, last);
        }
        foreach (OpenFile file in files)
        {
            inodes.Add(file.Inode, file);
            lock (_lock)
            {
                _files[file.Handle] = file;
                // 0 where a version before this one has written it.
                if (file.Request != 0)
                    _restored[file.Request] = file.Handle;
                _last = Math.Max(_last, file.Handle);
            }
        }
    }

    /// <summary>A new number.</summary>
    public ulong Next() => Interlocked.Increment(ref _last);

    /// <summary>Adds an opening.</summary>
    public void Add(OpenFile file)
    {
        inodes.Add(file.Inode, file);
        lock (_lock)
        {
            _files.Add(file.Handle, file);
            file.Slot = Session?.Add(file) ?? -1;
        }
    }

    /// <summary>The opening with a number; null if there is none.</summary>
    public OpenFile? Find(ulong handle)
    {
        lock (_lock)
            return _files.GetValueOrDefault(handle);
    }

    /// <summary>Ends an opening. Requests that work with it already are finished.</summary>
    /// <returns>Whether there was one.</returns>
    public bool Remove(ulong handle)
    {
        OpenFile? file;
        lock (_lock)
        {
            if (!_files.Remove(handle, out file))
                return false;
            Session?.Remove(file.Slot);
        }
        End(file);
        return true;
    }

    /// <summary>The guest has not heard of the opening that a process before this one made by a request.</summary>
    public void TakeBack(ulong request)
    {
        ulong handle;
        lock (_lock)
        {
            if (!_restored.Remove(request, out handle))
                return;
        }
        Remove(handle);
    }

    /// <summary>Ends all of them.</summary>
    public void Clear()
    {
        OpenFile[] files;
        lock (_lock)
        {
            files = [.. _files.Values];
            _files.Clear();
            _restored.Clear();
        }
        foreach (OpenFile file in files)
            End(file);
    }

    private void End(OpenFile file)
    {
        inodes.Remove(file.Inode, file);
        file.Descriptor.Dispose();
        if (file.Directory is not { } stream)
            return;
        lock (stream)
            stream.End();
    }
}
