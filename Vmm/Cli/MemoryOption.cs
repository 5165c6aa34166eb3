using System.Numerics;
using Vmm.Machine;
using Vmm.Vhost.Memory;

namespace Vmm.Cli;

/// <summary>The value of <c>--memory</c>: <c>SIZE</c>, or <c>size=SIZE[,hugepages=on|off][,hugepage_size=SIZE][,prefault=on|off]</c>.</summary>
internal static class MemoryOption
{
    /// <summary>The option's name.</summary>
    public const string Name = "--memory";

    private const ulong PageSize = 4096;
    private const ulong DefaultHugePageSize = 2UL << 20;
    private const ulong Min = 64UL << 20;
    private const ulong Max = 64UL << 40;   // what 46 physical address bits hold: no guest has use for more

    /// <summary>The size in bytes and how it is backed. Whether the host has the memory is seen later.</summary>
    /// <exception cref="UsageException">The value is malformed, absurd or contradicts itself.</exception>
    public static (ulong Size, GuestMemoryOptions Options) Parse(string text)
    {
        if (!text.Contains('='))
            return (ParseSize(new OptionValue(Name, null, text), PageSize), new GuestMemoryOptions());

        KeyValueList list = KeyValueList.Parse(Name, text, "size", "hugepages", "hugepage_size", "prefault");
        ulong hugePageSize = ParseHugePageSize(list);
        OptionValue size = list.Find("size") ?? throw new UsageException($"{Name}: '{text}' has no size: write size=SIZE");
        return (ParseSize(size, Math.Max(hugePageSize, PageSize)), new GuestMemoryOptions
        {
            HugePageSize = hugePageSize,
            Prefault = list.Find("prefault") is { } prefault && Choice.ParseSwitch(prefault),
        });
    }

    private static ulong ParseSize(OptionValue value, ulong alignment)
    {
        ulong size = SizeValue.Parse(value);
        if (size is < Min or > Max)
            throw value.Refuse($"is out of range: a guest takes {HostHugePages.Name(Min)} to {Max >> 40}T");
        if (size % alignment != 0)
            throw value.Refuse($"is not a multiple of {HostHugePages.Name(alignment)}, the size of the pages behind it");
        return size;
    }

    private static ulong ParseHugePageSize(KeyValueList list)
    {
        bool on = list.Find("hugepages") is { } hugePages && Choice.ParseSwitch(hugePages);
        if (list.Find("hugepage_size") is not { } value)
            return on ? DefaultHugePageSize : 0;
        if (!on)
            throw value.Refuse("has no effect without hugepages=on: add that, or leave hugepage_size out");
        ulong size = SizeValue.Parse(value);
        return BitOperations.IsPow2(size) && size > PageSize
            ? size
            : throw value.Refuse("is not a huge page size: it must be a power of two above 4K, such as 2M or 1G");
    }
}
