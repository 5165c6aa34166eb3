using SharpCompress.Compressors;
using SharpCompress.Compressors.BZip2;

namespace Vmm.Boot.Payload;

/// <summary>bzip2.</summary>
internal sealed class Bzip2Decoder : StreamDecoder
{
    /// <inheritdoc/>
    public override string Format => "bzip2";

    /// <inheritdoc/>
    protected override Stream Open(in MappedRange packed)
    {
        Stream source = new StrictStream(packed.Slice(0, packed.Length - SizeTrailer).OpenStream());
        return BZip2Stream.Create(source, CompressionMode.Decompress, false, false, false);
    }
}
