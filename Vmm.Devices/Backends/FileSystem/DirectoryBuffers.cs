namespace Vmm.Devices.Backends.FileSystem;

/// <summary>Memory into which directories are read. A directory that is read to its end at once needs it for that moment only; of those that are not, so
/// many keep theirs, and the others are read once more. So a guest that opens many has no more of this process's memory. Thread-safe.</summary>
internal sealed class DirectoryBuffers
{
    /// <summary>Bytes of one.</summary>
    public const int Size = 32 * 1024;

    private const int MostKept = 128;

    private readonly Lock _lock = new();
    private readonly Stack<byte[]> _free = [];
    private int _kept;

    /// <summary>One to read into.</summary>
    public byte[] Take()
    {
        lock (_lock)
            return _free.TryPop(out byte[]? buffer) ? buffer : new byte[Size];
    }

    /// <summary>Gives it back.</summary>
    public void Return(byte[] buffer)
    {
        lock (_lock)
        {
            if (_free.Count < MostKept)
                _free.Push(buffer);
        }
    }

    /// <summary>Whether one more directory may keep what it has.</summary>
    public bool TryKeep()
    {
        lock (_lock)
            return _kept < MostKept && ++_kept > 0;
    }

    /// <summary>A directory keeps nothing any more.</summary>
    public void EndKeeping()
    {
        lock (_lock)
            _kept--;
    }
}
