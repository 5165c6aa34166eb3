namespace Vmm.Devices.Backends.FileSystem;

/// <summary>How many ranges the guest has locked in all files together: each takes memory of this process and of the host's kernel. Thread-safe.</summary>
/// <param name="most">How many there may be.</param>
internal sealed class RangeCount(int most = RangeCount.Most)
{
    /// <summary>How many a guest may have.</summary>
    public const int Most = 262_144;

    private int _count;

    /// <summary>Sets so many aside.</summary>
    /// <returns>False if there are not so many left; never for none.</returns>
    public bool TryTake(int count)
    {
        if (count == 0 || Interlocked.Add(ref _count, count) <= most)
            return true;
        GiveBack(count);
        return false;
    }

    /// <summary>So many are there no more.</summary>
    public void GiveBack(int count) => Interlocked.Add(ref _count, -count);
}
