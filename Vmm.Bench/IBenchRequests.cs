namespace Vmm.Bench;

/// <summary>The requests of a device: what a <see cref="BenchQueue"/> puts into its slots.</summary>
internal interface IBenchRequests
{
    /// <summary>Bytes of data that each slot has room for.</summary>
    int DataSize { get; }

    /// <summary>Writes the slot's next request, its table of descriptors included.</summary>
    /// <param name="slot">Where.</param>
    /// <param name="random">A number to choose by.</param>
    /// <returns>The descriptors in the table.</returns>
    int Fill(BenchSlot slot, ulong random);

    /// <summary>The request is done.</summary>
    /// <exception cref="InvalidOperationException">The device says that it failed.</exception>
    void Check(BenchSlot slot);
}
