using System.IO.Compression;

namespace Vmm.Boot.Payload;

/// <summary>gzip (RFC 1952); its last four bytes, the size, are part of the format.</summary>
internal sealed class GzipDecoder : StreamDecoder
{
    /// <inheritdoc/>
    public override string Format => "gzip";

    /// <inheritdoc/>
    protected override Stream Open(in MappedRange packed) => new GZipStream(packed.OpenStream(), CompressionMode.Decompress);
}
