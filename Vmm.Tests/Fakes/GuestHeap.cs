using Vmm.Vhost.Memory;

namespace Vmm.Tests.Fakes;

/// <summary>Hands out guest memory, piece after piece, each in one region; nothing is taken back.</summary>
internal sealed class GuestHeap(GuestMemory memory)
{
    private readonly ulong[] _used = new ulong[memory.Regions.Length];

    public GuestMemory Memory { get; } = memory;

    /// <summary><paramref name="length"/> bytes of a region.</summary>
    public GuestAddress Allocate(int length, int region = 0, int alignment = 64)
    {
        ulong start = (_used[region] + (ulong)alignment - 1) & ~((ulong)alignment - 1);
        GuestRegion from = Memory.Regions[region];
        if (start + (ulong)length > from.Size)
            throw new InvalidOperationException($"region {region} of the test's guest memory is full");
        _used[region] = start + (ulong)length;
        return from.Start + start;
    }
}
