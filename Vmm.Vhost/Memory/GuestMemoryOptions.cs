namespace Vmm.Vhost.Memory;

/// <summary>How guest memory is backed.</summary>
public sealed record GuestMemoryOptions
{
    /// <summary>0 for normal pages, or the huge page size in bytes: a power of two that this host offers, such as 2 MiB or 1 GiB.</summary>
    public ulong HugePageSize { get; init; }

    /// <summary>Back all of it with pages before the guest starts, rather than page by page on first use.</summary>
    public bool Prefault { get; init; }
}
