namespace Vmm.Vhost.Virtqueue;

/// <summary>A piece of guest memory that a descriptor names, found to lie in one region.</summary>
/// <param name="Address">Where it is in this process.</param>
/// <param name="Length">Its length in bytes.</param>
public readonly record struct GuestBuffer(nint Address, uint Length)
{
    /// <summary>The bytes. The guest may change them at any time.</summary>
    // SAFETY: a VirtQueue makes buffers of ranges that GuestMemory has checked, and others only parts of these; memory outlives the queue.
    public unsafe Span<byte> Span => new((void*)Address, checked((int)Length));
}
