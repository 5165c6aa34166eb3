using System.Globalization;

namespace Vmm.Devices.Virtio;

/// <summary>How many files the back-ends of all devices may map into their guest. The kernel allows a process so many mappings
/// (vm.max_map_count) and no more, and where they are used up nothing works any more: no memory for the runtime, no new thread. So the
/// back-ends get a part of them. Thread-safe.</summary>
/// <param name="limit">Mappings.</param>
internal sealed class MappingBudget(int limit)
{
    private const string LimitPath = "/proc/sys/vm/max_map_count";
    private const int UsualLimit = 65530;   // the kernel's default (Linux include/linux/mm.h, DEFAULT_MAX_MAP_COUNT)

    // A mapping in the middle of a region takes two of the kernel's: its own, and the rest of the region behind it. So these are at most half
    // of what the process may have.
    private const int Fraction = 4;

    private int _taken;

    /// <summary>That of this process: a quarter of vm.max_map_count, as it was at the first look.</summary>
    public static MappingBudget Process { get; } = new(ReadLimit() / Fraction);

    /// <summary>Mappings in all.</summary>
    public int Limit => limit;

    /// <summary>Takes <paramref name="count"/> mappings out of the budget.</summary>
    /// <returns>Whether there were so many; if not, none is taken.</returns>
    public bool TryTake(int count)
    {
        if (Interlocked.Add(ref _taken, count) <= limit)
            return true;
        Return(count);
        return false;
    }

    /// <summary>Gives <paramref name="count"/> mappings back.</summary>
    public void Return(int count) => Interlocked.Add(ref _taken, -count);

    private static int ReadLimit()
    {
        try
        {
            string text = File.ReadAllText(LimitPath).Trim();
            return int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int limit) ? limit : UsualLimit;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return UsualLimit;
        }
    }
}
