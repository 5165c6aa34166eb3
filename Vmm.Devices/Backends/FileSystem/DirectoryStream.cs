using System.Buffers.Binary;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Devices.Backends.FileSystem;

/// <summary>How far a directory was read: entries that the kernel gave and the guest has not had yet. Its lock is this object.</summary>
internal sealed class DirectoryStream(DirectoryBuffers buffers)
{
    private const int FixedSize = 19;       // struct linux_dirent64 up to its name: ino, off, reclen, type

    private byte[]? _buffer;
    private int _start;
    private int _end;
    private long _position;     // of the entry at _start, as the guest says it
    private bool _isKnown = true;
    private bool _isKept;       // the buffer, between two reads
    private bool _hasEnded;

    /// <summary>Gets ready to read from <paramref name="position"/> on: 0, or what stood in an entry.</summary>
    /// <returns>0, or a negated error number.</returns>
    public int Seek(in HeldDescriptor directory, long position)
    {
        if (_isKept)
        {
            buffers.EndKeeping();
            _isKept = false;
        }
        if (_isKnown && position == _position)
            return 0;
        _start = _end = 0;
        _isKnown = false;
        long result = OpenFileIo.Seek(in directory, position, 0);
        if (result < 0)
            return (int)result;
        _position = position;
        _isKnown = true;
        return 0;
    }

    /// <summary>Looks at the next entry, without taking it.</summary>
    /// <param name="directory">The directory.</param>
    /// <param name="entry">The entry; its name ends with a null byte.</param>
    /// <returns>1, 0 at the end, or a negated error number.</returns>
    public int Peek(in HeldDescriptor directory, out DirectoryEntry entry)
    {
        entry = default;
        if (_start >= _end)
        {
            _buffer ??= buffers.Take();
            int count = FileTree.ReadDirectory(in directory, _buffer);
            if (count <= 0)
                return count;
            (_start, _end) = (0, count);
        }
        ReadOnlySpan<byte> rest = _buffer.AsSpan(_start, _end - _start);
        int length = BinaryPrimitives.ReadUInt16LittleEndian(rest[16..]);
        ReadOnlySpan<byte> name = rest[FixedSize..length];
        entry = new DirectoryEntry(
            BinaryPrimitives.ReadUInt64LittleEndian(rest), BinaryPrimitives.ReadInt64LittleEndian(rest[8..]), rest[18], length, name[..(name.IndexOf((byte)0) + 1)]);
        return 1;
    }

    /// <summary>Ends a read. The entries that are left are kept for the next read, unless other streams keep too many already.</summary>
    public void Rest()
    {
        if (_buffer is null)
            return;
        bool isLeft = _start < _end && !_hasEnded;
        if (isLeft && buffers.TryKeep())
        {
            _isKept = true;
            return;
        }
        _isKnown &= !isLeft;
        _start = _end = 0;
        buffers.Return(_buffer);
        _buffer = null;
    }

    /// <summary>Nobody reads any more.</summary>
    public void End()
    {
        _hasEnded = true;
        if (_isKept)
            buffers.EndKeeping();
        _isKept = false;
        Rest();
    }

    /// <summary>Takes what <see cref="Peek"/> gave.</summary>
    public void Take(in DirectoryEntry entry)
    {
        _start += entry.Length;
        _position = entry.Next;
    }
}

/// <summary>An entry of a directory.</summary>
/// <param name="inode">The file's number.</param>
/// <param name="next">Where the next entry is.</param>
/// <param name="type">What kind of file it is: DT_* of dirent.h.</param>
/// <param name="length">Bytes of the kernel's structure.</param>
/// <param name="name">Its name, with a null byte.</param>
internal readonly ref struct DirectoryEntry(ulong inode, long next, byte type, int length, ReadOnlySpan<byte> name)
{
    public ulong Inode { get; } = inode;

    public long Next { get; } = next;

    public byte Type { get; } = type;

    public int Length { get; } = length;

    public ReadOnlySpan<byte> Name { get; } = name;

    /// <summary>Whether it is . or ..</summary>
    public bool IsDot => Name.SequenceEqual(".\0"u8) || Name.SequenceEqual("..\0"u8);
}
