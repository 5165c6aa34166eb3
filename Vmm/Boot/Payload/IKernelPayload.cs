namespace Vmm.Boot.Payload;

/// <summary>What a bzImage unpacks to: an ELF file, and often a list of relocations behind it. Packed, or as it was kept when it was unpacked before.</summary>
internal interface IKernelPayload
{
    /// <summary>What it is, for the log.</summary>
    string Name { get; }

    /// <summary>Bytes, 1 to <see cref="PackedPayload.MaxLength"/>.</summary>
    int Length { get; }

    /// <summary>Copies the first bytes, as many as <paramref name="head"/> takes; at most <see cref="Length"/>.</summary>
    /// <exception cref="VmmException">It is damaged; the message names the file.</exception>
    void CopyHead(Span<byte> head);

    /// <summary>Gives all of it to <paramref name="sink"/>, but for what is zero.</summary>
    /// <exception cref="VmmException">It is damaged; the message names the file.</exception>
    void CopyTo(IPayloadSink sink);
}
