using System.Buffers.Binary;
using System.IO.Compression;
using ZstdSharp;

namespace Vmm.Boot.Payload;

/// <summary>A file that is compressed by itself or not at all, such as a kernel module: unlike in a bzImage, nothing is appended to it, and
/// nothing says what size it unpacks to.</summary>
internal static class CompressedFile
{
    private const int BufferSize = 64 << 10;

    /// <summary>The unpacked bytes of <paramref name="file"/>: by gzip, xz or zstd, told apart by content; those of a file of any other kind as they are.</summary>
    /// <param name="file">The whole file.</param>
    /// <param name="limit">The most bytes that are taken.</param>
    /// <exception cref="InvalidDataException">It unpacks to more than <paramref name="limit"/> bytes. A damaged file is reported by exceptions of
    /// any type, as the decoders' libraries have them.</exception>
    public static byte[] Decode(in MappedRange file, int limit)
    {
        switch (PayloadDecoder.For(file.Bytes))
        {
            case GzipDecoder when file.Length >= sizeof(uint):
                byte[] content = ReadAll(new GZipStream(file.OpenStream(), CompressionMode.Decompress), limit);
                // The library takes the end of a truncated file for the end of its content. The size stands at the end (RFC 1952 §2.3.1).
                return BinaryPrimitives.ReadUInt32LittleEndian(file.Bytes[^sizeof(uint)..]) == (uint)content.Length
                    ? content
                    : throw new InvalidDataException("truncated");
            case ZstdDecoder:
                return ReadAll(new DecompressionStream(file.OpenStream(), leaveOpen: false), limit);
            case XzDecoder:
                return XzDecoder.DecodeFile(file, limit);
            default:
                return file.Length <= limit ? file.Bytes.ToArray() : throw TooLarge(limit);
        }
    }

    /// <summary>Appends all of <paramref name="stream"/> to <paramref name="target"/>.</summary>
    /// <param name="stream">Unpacked bytes.</param>
    /// <param name="target">Where they go.</param>
    /// <param name="limit">How large <paramref name="target"/> may become, in bytes.</param>
    /// <exception cref="InvalidDataException">It would become larger.</exception>
    public static void CopyAll(Stream stream, MemoryStream target, int limit)
    {
        byte[] buffer = new byte[BufferSize];
        for (int count; (count = stream.Read(buffer, 0, buffer.Length)) > 0;)
        {
            if (count > limit - target.Length)
                throw TooLarge(limit);
            target.Write(buffer, 0, count);
        }
    }

    private static byte[] ReadAll(Stream stream, int limit)
    {
        using var target = new MemoryStream();
        using (stream)
            CopyAll(stream, target, limit);
        return target.ToArray();
    }

    private static InvalidDataException TooLarge(int limit) => new($"it has more than {limit} bytes when it is unpacked");
}
