using System.Buffers;

namespace Vmm.Boot.Payload;

/// <summary>The dictionary of an LZMA decoder: tens of megabytes of managed memory, used once in a run.</summary>
internal static class LzmaDictionary
{
    /// <summary>No larger one is allocated; Linux is packed with 8 to 128 MiB.</summary>
    public const uint MaxSize = 128 << 20;

    private const uint FirstStage = 4096;

    /// <summary>Gives a dictionary of <paramref name="size"/> bytes back to the system, after its stream was disposed.</summary>
    public static void Release(uint size)
    {
        // It grew by doubling, and the stream has handed each stage of it to the shared pool, which would keep them for this thread: take
        // them out again and let them go. Collected at once, because a program that allocates next to nothing from now on might never
        // collect by itself.
        for (uint stage = FirstStage; stage / 2 < size; stage *= 2)
            _ = ArrayPool<byte>.Shared.Rent((int)stage);
        GC.Collect(2, GCCollectionMode.Aggressive);
    }
}
