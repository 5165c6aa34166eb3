using Vmm.Vhost.Native;

namespace Vmm.Boot.Payload;

/// <summary>A decoder around a library that needs all of what it has unpacked until its end.</summary>
internal abstract class WholeDecoder : PayloadDecoder
{
    /// <inheritdoc/>
    public override void Decode(in MappedRange packed, int length, IPayloadSink sink)
    {
        using MemoryMapping whole = MemoryMapping.Allocate((uint)length);
        whole.PreferHugePages();
        Decode(packed, whole.AsSpan());
        sink.Write(0, whole.AsSpan());
    }

    /// <summary>Unpacks all of it, which must fill <paramref name="target"/> exactly.</summary>
    protected abstract void Decode(in MappedRange packed, Span<byte> target);
}
