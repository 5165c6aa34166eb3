using System.Buffers.Binary;
using Vmm.Vhost.Native;

namespace Vmm.Boot.Payload;

/// <summary>The compressed payload of a bzImage.</summary>
internal sealed class PackedPayload : IKernelPayload, IDisposable
{
    /// <summary>Ten times any kernel's: what a corrupt image can make the host set aside before its payload is looked at.</summary>
    public const int MaxLength = 512 << 20;

    private const uint MinPacked = 32;     // more than the header of any format, and the size at the end

    private readonly ImageFile _file;
    private readonly MappedFile _view;
    private readonly MappedRange _packed;
    private readonly PayloadDecoder _decoder;

    private PackedPayload(ImageFile file, MappedFile view, MappedRange packed, PayloadDecoder decoder)
    {
        (_file, _view, _packed, _decoder) = (file, view, packed, decoder);
        uint length = BinaryPrimitives.ReadUInt32LittleEndian(packed.Bytes[^4..]);   // every format has its unpacked size at the end
        if (length is 0 or > MaxLength)
            throw file.Error($"the payload's last four bytes say that it unpacks to {length} bytes: corrupt");
        Length = (int)length;
    }

    /// <inheritdoc/>
    public string Name => _decoder.Format;

    /// <inheritdoc/>
    public int Length { get; }

    /// <summary>The payload of <paramref name="file"/>, which has one; null where its format is not one that is unpacked here.</summary>
    /// <param name="file">A bzImage.</param>
    /// <param name="header">Its setup header.</param>
    /// <exception cref="VmmException">The file is truncated or corrupt.</exception>
    public static PackedPayload? TryOpen(ImageFile file, SetupHeader header)
    {
        ulong start = (ulong)header.KernelOffset + header.PayloadOffset;
        if (start + header.PayloadLength > (ulong)file.Length)
        {
            throw file.Error(
                $"truncated: payload_offset 0x{header.PayloadOffset:x} and payload_length 0x{header.PayloadLength:x} reach beyond its {file.Length} bytes");
        }
        if (header.PayloadLength < MinPacked)
            throw file.Error($"payload_length is {header.PayloadLength}: too short for a compressed kernel");
        MappedFile view = file.Map();
        PackedPayload? payload = null;
        try
        {
            var packed = new MappedRange(view, (int)start, (int)header.PayloadLength);
            if (PayloadDecoder.For(packed.Bytes) is PayloadDecoder decoder)
                payload = new PackedPayload(file, view, packed, decoder);
            return payload;
        }
        finally
        {
            if (payload is null)
                view.Dispose();
        }
    }

    /// <inheritdoc/>
    public void CopyHead(Span<byte> head)
    {
        try
        {
            _decoder.DecodeHead(_packed, head);
        }
        catch (Exception e)
        {
            throw Failure(e);
        }
    }

    /// <inheritdoc/>
    public void CopyTo(IPayloadSink sink)
    {
        try
        {
            _decoder.Decode(_packed, Length, sink);
        }
        catch (Exception e) when (e is not VmmException)
        {
            throw Failure(e);
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _view.Dispose();

    // A failed system call and a lack of memory are the host's fault. All else is the file's: a damaged one makes the decoders' libraries throw exceptions of many types.
    private VmmException Failure(Exception e) => _file.Error(e switch
    {
        ErrnoException => $"the {_decoder.Format} payload cannot be unpacked: {e.Message}",
        OutOfMemoryException => $"the {_decoder.Format} payload cannot be unpacked: this process gets no more memory: free some on this host, or raise the limit (ulimit -v)",
        _ => $"the {_decoder.Format} payload is corrupt: {e.Message.ReplaceLineEndings(" ")}",
    }, e);
}
