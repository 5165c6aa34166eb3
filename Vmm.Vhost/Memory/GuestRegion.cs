namespace Vmm.Vhost.Memory;

/// <summary>A contiguous piece of guest RAM: where the guest sees it, and where it lies in the memfd.</summary>
/// <param name="Start">Its first guest-physical address.</param>
/// <param name="Size">Its size in bytes.</param>
/// <param name="FileOffset">Where it begins in the memfd, in bytes.</param>
/// <param name="HostAddress">Where it begins in this process.</param>
public readonly record struct GuestRegion(GuestAddress Start, ulong Size, ulong FileOffset, nint HostAddress)
{
    /// <summary>The first address after it.</summary>
    public GuestAddress End => Start + Size;
}
