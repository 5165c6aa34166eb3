namespace Vmm.Vhost.Memory;

/// <summary>How guest memory is backed.</summary>
public sealed record GuestMemoryOptions
{
    /// <summary>0 for normal pages, or the huge page size in bytes: a power of two that this host offers, such as 2 MiB or 1 GiB.</summary>
    /// <exception cref="ArgumentOutOfRangeException">It is neither 0 nor a power of two of at least 4096.</exception>
    public ulong HugePageSize
    {
        get;
        init => field = value == 0 || (ulong.IsPow2(value) && value >= 4096)
            ? value
            : throw new ArgumentOutOfRangeException(
                nameof(HugePageSize), value, $"{nameof(HugePageSize)} must be 0 or a power of two of at least 4096");
    }

    /// <summary>Back all of it with pages before the guest starts, rather than page by page on first use.</summary>
    public bool Prefault { get; init; }
}
