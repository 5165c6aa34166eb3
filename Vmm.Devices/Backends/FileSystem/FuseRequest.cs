using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Vmm.Vhost.Native;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Devices.Backends.FileSystem;

/// <summary>A request of the guest's on its way: its header and arguments, copied out of the guest's memory once, and where its reply goes. Objects are used again
/// and again.</summary>
internal sealed class FuseRequest
{
    /// <summary>The most bytes of arguments that any request but a write may have: a value of an extended attribute, and names.</summary>
    public const int MaxArguments = 128 * 1024;

    private const int UsualSize = 1024;
    private const int ShortReply = 24;                  // bytes of the longest reply, with its header, of what waits for a lock or is for the pool, but for a read
    private const int UsualPieces = ShortReply;         // of the guest's memory, that a request and its reply have: a driver may cut a short reply into bytes
    private const int MaxLeftArguments = 8 * 1024;      // FUSE_REMOVEMAPPING with 256 ranges, and room to spare
    private const int MaxNameLength = InodeTable.MaxName - 1;

    private readonly byte[] _usualReply = new byte[UsualSize];
    private byte[] _ownArguments = new byte[UsualSize];
    private byte[] _arguments = [];
    private byte[] _reply = [];
    private GuestBuffer[] _writable = new GuestBuffer[UsualPieces];
    private GuestBuffer[] _readable = new GuestBuffer[UsualPieces];
    private IoVector[] _vectors = new IoVector[UsualPieces];
    private int _writableCount;
    private int _readableCount;
    private int _argumentsLength;
    private int _position;
    private FuseRequestHeader _header;
    private ulong _room;

    /// <summary>By what number it goes back into the ring.</summary>
    public ushort Head { get; private set; }

    /// <summary>The ring from which it came, and to which it goes back when another thread has done it.</summary>
    public FileSystemRing? Ring { get; init; }

    /// <summary>Memory for what is larger than usual: the ring's, because only a request that is done at once has such things.</summary>
    public required LargeBuffers Large { get; init; }

    /// <summary>The header of the request: its operation, the file, and the caller in the guest.</summary>
    public ref readonly FuseRequestHeader Header => ref _header;

    /// <summary>What came of it: bytes of the reply behind its header, or a negated error number.</summary>
    public long Result { get; set; }

    /// <summary>Bytes that a reply may have behind its header.</summary>
    public long Room => (long)_room - FuseReplyHeader.WireSize;

    /// <summary>Whether the reply's bytes are in the guest's memory already.</summary>
    public bool IsReplyInPlace { get; set; }

    /// <summary>Whether it keeps more memory than most requests do: for many pieces of the guest's memory, or for long arguments; up to 60 KiB.</summary>
    public bool IsLarge => _writable.Length > UsualPieces || _readable.Length > UsualPieces || _ownArguments.Length > UsualSize;

    /// <summary>Whether another thread may go on with it: its arguments are not in the memory that the ring uses for the next request, too.</summary>
    public bool MayBeLeft => _arguments == _ownArguments;

    /// <summary>Bytes of the arguments, without the extensions behind them.</summary>
    public int ArgumentsLength => _argumentsLength - 8 * _header.ExtensionWords;

    /// <summary>Takes a request over.</summary>
    /// <returns>0, or a negated error number with which it is to be answered.</returns>
    public int Load(ref readonly DescriptorChain chain)
    {
        Head = chain.Head;
        Result = 0;
        IsReplyInPlace = false;
        _position = 0;
        _argumentsLength = 0;
        _header = default;
        _arguments = _ownArguments;
        _reply = _usualReply;
        _room = chain.WritableLength;
        Span<byte> header = MemoryMarshal.AsBytes(new Span<FuseRequestHeader>(ref _header));
        ulong length = chain.ReadableLength;
        bool hasHeader = chain.Read(0, header) == FuseRequestHeader.WireSize && _header.Length >= FuseRequestHeader.WireSize && _header.Length <= length;
        if (!hasHeader)
        {
            _header.Opcode = 0;
            _header.ExtensionWords = 0;
        }
        // A guest may have as many requests wait as its rings have room for: none of them keeps much memory, but for the few reads and writes that the ring lets wait. Of the room for a short reply
        // no more is kept than that reply takes.
        bool mayBeLeft = FuseServer.MayBeLeft(_header.Opcode);
        if (mayBeLeft && _header.Opcode is not (FuseOpcode.Read or FuseOpcode.Write))
            CopyShort(chain.Writable, ShortReply, _writable, out _writableCount);
        else
            Copy(chain.Writable, ref _writable, out _writableCount);
        if (!hasHeader)
            return -Errnos.Einval;
        uint count = _header.Length - FuseRequestHeader.WireSize;
        if (_header.Opcode is FuseOpcode.Write or FuseOpcode.BatchForget)
        {
            Copy(chain.Readable, ref _readable, out _readableCount);
            count = Math.Min(count, (uint)(_header.Opcode == FuseOpcode.Write ? FuseTransfer.WireSize : FuseForgetBatch.WireSize));
        }
        if (count > (mayBeLeft ? MaxLeftArguments : MaxArguments) || 8 * _header.ExtensionWords > count)
        {
            _header.ExtensionWords = 0;
            return -Errnos.Einval;
        }
        if (_arguments.Length <= count)
            _arguments = mayBeLeft ? _ownArguments = new byte[count + 1] : Large.Arguments((int)count + 1);
        _argumentsLength = chain.Read(FuseRequestHeader.WireSize, _arguments.AsSpan(0, (int)count));
        _arguments[_argumentsLength] = 0;
        return _argumentsLength == count ? 0 : -Errnos.Einval;
    }

    /// <summary>Takes the next structure of the arguments.</summary>
    /// <returns>False if there is no such thing.</returns>
    public bool TryTake<T>(out T value)
        where T : unmanaged
    {
        int size = Unsafe.SizeOf<T>();
        if (ArgumentsLength - _position < size)
        {
            value = default;
            return false;
        }
        value = MemoryMarshal.Read<T>(_arguments.AsSpan(_position));
        _position += size;
        return true;
    }

    /// <summary>Takes a text up to its null byte, which it includes.</summary>
    /// <param name="text">At least the null byte.</param>
    /// <returns>False if there is no null byte.</returns>
    public bool TryTakeText(out ReadOnlySpan<byte> text)
    {
        ReadOnlySpan<byte> rest = _arguments.AsSpan(_position, Math.Max(0, ArgumentsLength - _position));
        int end = rest.IndexOf((byte)0);
        text = rest[..(end + 1)];
        _position += end + 1;
        return end >= 0;
    }

    /// <summary>Takes a name in a directory, with its null byte: one component of a path, and none that leads elsewhere.</summary>
    /// <returns>0, or a negated error number.</returns>
    public int TakeName(out ReadOnlySpan<byte> name)
    {
        if (!TryTakeText(out name) || name.Length == 1 || name.Contains((byte)'/') || name.SequenceEqual(".\0"u8) || name.SequenceEqual("..\0"u8))
            return -Errnos.Einval;
        return name.Length - 1 > MaxNameLength ? -Errnos.Enametoolong : 0;
    }

    /// <summary>Takes the next bytes of the arguments.</summary>
    public bool TryTakeBytes(uint count, out ReadOnlySpan<byte> bytes)
    {
        bytes = default;
        if (count > (uint)Math.Max(0, ArgumentsLength - _position))
            return false;
        bytes = _arguments.AsSpan(_position, (int)count);
        _position += (int)count;
        return true;
    }

    /// <summary>The arguments that were not taken.</summary>
    public ReadOnlySpan<byte> Rest => _arguments.AsSpan(_position, Math.Max(0, ArgumentsLength - _position));

    /// <summary>The extensions behind the arguments.</summary>
    public ReadOnlySpan<byte> Extensions => _arguments.AsSpan(Math.Max(0, ArgumentsLength), _argumentsLength - Math.Max(0, ArgumentsLength));

    /// <summary>Begins the request's arguments anew, for whoever goes on with it.</summary>
    public void Rewind() => _position = 0;

    /// <summary>Memory in which a reply of at most <paramref name="size"/> bytes is put together. The largest that anybody asks for is a listing of a directory, or of
    /// extended attributes: 64 KiB. Data of files goes straight to the guest.</summary>
    public Span<byte> MakeReply(int size)
    {
        if (_reply.Length < size)
            _reply = Large.Reply(size);
        return _reply.AsSpan(0, size);
    }

    /// <summary>Makes a reply of one structure.</summary>
    /// <returns>Its size.</returns>
    public int Reply<T>(in T value, int offset = 0)
        where T : unmanaged
    {
        int size = Unsafe.SizeOf<T>();
        MemoryMarshal.Write(MakeReply(offset + size)[offset..], in value);
        return offset + size;
    }

    /// <summary>The guest's memory for the bytes of a reply behind its header.</summary>
    public ReadOnlySpan<IoVector> ReplyVectors(ulong offset, ulong length) => Vectors(_writable.AsSpan(0, _writableCount), FuseReplyHeader.WireSize + offset, length);

    /// <summary>The guest's memory with the data of a write.</summary>
    public ReadOnlySpan<IoVector> DataVectors(ulong offset, ulong length) =>
        Vectors(_readable.AsSpan(0, _readableCount), FuseRequestHeader.WireSize + FuseTransfer.WireSize + offset, length);

    /// <summary>Bytes of data behind the arguments of a write.</summary>
    public ulong DataLength => _header.Length - Math.Min(_header.Length, FuseRequestHeader.WireSize + FuseTransfer.WireSize);

    /// <summary>Reads bytes behind the arguments of a FUSE_BATCH_FORGET out of the guest's memory.</summary>
    /// <param name="offset">Where, from the end of the header of the batch on.</param>
    /// <param name="bytes">Takes them; there must be as many.</param>
    public void ReadForgets(ulong offset, Span<byte> bytes)
    {
        foreach (GuestBuffer piece in new GuestBufferRange(_readable.AsSpan(0, _readableCount), FuseRequestHeader.WireSize + FuseForgetBatch.WireSize + offset, (ulong)bytes.Length))
        {
            piece.Span.CopyTo(bytes);
            bytes = bytes[(int)piece.Length..];
        }
    }

    /// <summary>Writes the reply to the guest's memory.</summary>
    /// <returns>Bytes written; 0 where the guest has left no room for an answer, or wants none.</returns>
    public uint Finish()
    {
        if (_room < FuseReplyHeader.WireSize || !FuseServer.HasReply(_header.Opcode))
            return 0;
        if (Result > Room)
            Result = -Errnos.Einval;    // there is no room for what was asked for
        int length = Result > 0 ? (int)Result : 0;
        var header = new FuseReplyHeader((uint)(FuseReplyHeader.WireSize + length), Result < 0 ? (int)Result : 0, _header.Unique);
        if (length > 0 && !IsReplyInPlace)
            Write(FuseReplyHeader.WireSize, _reply.AsSpan(0, length));
        Write(0, MemoryMarshal.AsBytes(new ReadOnlySpan<FuseReplyHeader>(in header)));
        return header.Length;
    }

    private void Write(ulong offset, ReadOnlySpan<byte> bytes)
    {
        foreach (GuestBuffer piece in new GuestBufferRange(_writable.AsSpan(0, _writableCount), offset, (ulong)bytes.Length))
        {
            bytes[..(int)piece.Length].CopyTo(piece.Span);
            bytes = bytes[(int)piece.Length..];
        }
    }

    private ReadOnlySpan<IoVector> Vectors(ReadOnlySpan<GuestBuffer> buffers, ulong offset, ulong length)
    {
        if (_vectors.Length < buffers.Length)
            _vectors = new IoVector[Math.Max(buffers.Length, 2 * _vectors.Length)];
        int made = 0;
        foreach (GuestBuffer piece in new GuestBufferRange(buffers, offset, length))
            _vectors[made++] = new IoVector(piece.Address, piece.Length);
        return _vectors.AsSpan(0, made);
    }

    private static void Copy(ReadOnlySpan<GuestBuffer> from, ref GuestBuffer[] to, out int count)
    {
        count = from.Length;
        if (to.Length < count)
            to = new GuestBuffer[Math.Max(count, 2 * to.Length)];
        from.CopyTo(to);
    }

    // Those that make up so many bytes: with none that is empty they are no more than the bytes.
    private static void CopyShort(ReadOnlySpan<GuestBuffer> from, uint bytes, GuestBuffer[] to, out int count)
    {
        count = 0;
        foreach (GuestBuffer buffer in from)
        {
            if (buffer.Length == 0)
                continue;
            to[count++] = buffer;
            if (buffer.Length >= bytes)
                return;
            bytes -= buffer.Length;
        }
    }
}

/// <summary>Memory of a ring's for the one request that it does at the moment, where that has long arguments or a long reply. It grows with what is asked for: up to
/// twice <see cref="FuseRequest.MaxArguments"/>, and twice the 64 KiB of the largest reply.</summary>
internal sealed class LargeBuffers
{
    private byte[] _arguments = [];
    private byte[] _reply = [];

    /// <summary>At least <paramref name="size"/> bytes for arguments.</summary>
    public byte[] Arguments(int size) => Grow(ref _arguments, size);

    /// <summary>At least <paramref name="size"/> bytes for a reply.</summary>
    public byte[] Reply(int size) => Grow(ref _reply, size);

    private static byte[] Grow(ref byte[] buffer, int size)
    {
        if (buffer.Length < size)
            buffer = new byte[Math.Max(size, 2 * buffer.Length)];
        return buffer;
    }
}
