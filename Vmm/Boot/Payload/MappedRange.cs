using Vmm.Vhost.Native;

namespace Vmm.Boot.Payload;

/// <summary>A checked range of a mapped file: the compressed kernel.</summary>
internal readonly record struct MappedRange(MappedFile File, int Offset, int Length)
{
    /// <summary>Its bytes.</summary>
    public ReadOnlySpan<byte> Bytes => File.Bytes.Slice(Offset, Length);

    /// <summary>A stream over it.</summary>
    public Stream OpenStream() => File.OpenStream(Offset, Length);

    /// <summary>The part from <paramref name="start"/> on, <paramref name="length"/> bytes.</summary>
    public MappedRange Slice(int start, int length)
    {
        _ = Bytes.Slice(start, length);
        return new MappedRange(File, Offset + start, length);
    }
}
