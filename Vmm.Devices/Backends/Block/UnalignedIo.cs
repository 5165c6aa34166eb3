using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Devices.Backends.Block;

/// <summary>Reads and writes past the page cache that begin or end inside a block of the file's (<see cref="DiskFile.TransferAlignment"/>), because the
/// guest sees smaller ones: the whole blocks are read, and those that change are written back. What a guest sees so does not depend on how
/// its image is opened. These calls wait: for the disk, for one of a few buffers, and for others that change the same blocks.</summary>
internal sealed class UnalignedIo
{
    /// <summary>The largest block of a file's, in bytes.</summary>
    public const int MaxUnit = 64 * 1024;

    private const int BufferSize = 2 * MaxUnit;
    private const int BufferCount = 8;

    // For all images of the process. There are none before the first image needs them.
    private static readonly Stack<NativeBuffer> s_buffers = new(BufferCount);
    private static bool s_areMade;

    private readonly DiskFile _file;
    private readonly RangeLock _ranges;
    private readonly ulong _unit;

    /// <summary>For <paramref name="file"/>, whose changes <paramref name="ranges"/> keep apart.</summary>
    public UnalignedIo(DiskFile file, RangeLock ranges)
    {
        _file = file;
        _ranges = ranges;
        _unit = (ulong)file.TransferAlignment;
        lock (s_buffers)
        {
            for (int i = 0; !s_areMade && i < BufferCount; i++)
                s_buffers.Push(new NativeBuffer(BufferSize, alignment: MaxUnit));
            s_areMade = true;
        }
    }

    /// <summary>Reads at <paramref name="offset"/> into <paramref name="vectors"/> as many bytes as go at a time.</summary>
    /// <returns>Bytes read, 0 at the end; less: the negated error number.</returns>
    public long Read(ReadOnlySpan<IoVector> vectors, ulong offset)
    {
        (ulong start, ulong end) = Piece(vectors, offset);
        int skip = (int)(offset - start);
        NativeBuffer buffer = Take();
        try
        {
            long read = Transfer(buffer, 0, start, (int)(Align.Up(end, _unit) - start), isWrite: false);
            if (read < 0)
                return read;
            int count = (int)Math.Min(read, (long)(end - start)) - skip;
            if (count <= 0)
                return 0;
            CopyToGuest(buffer.AsSpan<byte>().Slice(skip, count), vectors);
            return count;
        }
        finally
        {
            GiveBack(buffer);
        }
    }

    /// <summary>Writes at <paramref name="offset"/> as many bytes from <paramref name="vectors"/> as go at a time.</summary>
    /// <returns>Bytes written; less than 0: the negated error number.</returns>
    public long Write(ReadOnlySpan<IoVector> vectors, ulong offset)
    {
        // First the buffer, then the blocks. So a thread that has blocks waits for the disk only, and not for a thread that has a buffer.
        NativeBuffer buffer = Take();
        try
        {
            (ulong start, ulong end) = Piece(vectors, offset);
            _ranges.Enter(offset, end - offset);
            try
            {
                return Write(buffer, vectors, offset, start, end);
            }
            finally
            {
                _ranges.Leave(offset, end - offset);
            }
        }
        finally
        {
            GiveBack(buffer);
        }
    }

    private long Write(NativeBuffer buffer, ReadOnlySpan<IoVector> vectors, ulong offset, ulong start, ulong end)
    {
        // A file that ends inside a block cannot be written to its end past the page cache: it would become longer.
        if (_file.Cached is { } cached)
        {
            long size = _file.TryGetSize();
            if (size < 0)
                return size;
            end = Math.Min(end, (ulong)size);
            if (offset >= end)
                return 0;
            ulong whole = Align.Down((ulong)size, _unit);
            if (offset >= whole)
                return WriteCached(cached, buffer, vectors, offset, (int)(end - offset));
            end = Math.Min(end, whole);
        }
        return WriteWhole(buffer, vectors, offset, start, end);
    }

    private long WriteWhole(NativeBuffer buffer, ReadOnlySpan<IoVector> vectors, ulong offset, ulong start, ulong end)
    {
        int size = (int)(Align.Up(end, _unit) - start);
        int skip = (int)(offset - start);
        int last = size - (int)_unit;
        long error = 0;
        if (skip > 0 || (last == 0 && end < Align.Up(end, _unit)))
            error = Fill(buffer, 0, start);
        if (error == 0 && last > 0 && end < Align.Up(end, _unit))
            error = Fill(buffer, last, start + (ulong)last);
        if (error < 0)
            return error;
        int count = (int)(end - offset);
        CopyFromGuest(vectors, buffer.AsSpan<byte>().Slice(skip, count));
        long written = Transfer(buffer, 0, start, size, isWrite: true);
        return written < 0 ? written : written == size ? count : -Errnos.Eio;
    }

    // In the page cache for a moment only: blocks before this one may be in the same page.
    private static long WriteCached(FileDescriptor cached, NativeBuffer buffer, ReadOnlySpan<IoVector> vectors, ulong offset, int count)
    {
        CopyFromGuest(vectors, buffer.AsSpan<byte>()[..count]);
        long written = PositionedIo.Write(cached, [new IoVector(buffer.Address, (nuint)count)], (long)offset);
        int error = written > 0 ? PositionedIo.Sync(cached) : 0;
        return error < 0 ? error : written;
    }

    // Reads one block; what is behind the file's end is zero.
    private long Fill(NativeBuffer buffer, int at, ulong offset)
    {
        long read = Transfer(buffer, at, offset, (int)_unit, isWrite: false);
        if (read < 0)
            return read;
        buffer.AsSpan<byte>().Slice(at, (int)_unit)[(int)read..].Clear();
        return 0;
    }

    // All of it, or as much as there is.
    private long Transfer(NativeBuffer buffer, int at, ulong offset, int length, bool isWrite)
    {
        int done = 0;
        while (done < length)
        {
            ReadOnlySpan<IoVector> vector = [new IoVector(buffer.Address + at + done, (nuint)(length - done))];
            long result = isWrite ? PositionedIo.Write(_file, vector, (long)offset + done) : PositionedIo.Read(_file, vector, (long)offset + done);
            if (result < 0)
                return result;
            done += (int)result;
            // At the end of the file, or inside a block, where there is no going on.
            if (result == 0 || (ulong)done % _unit != 0)
                break;
        }
        return done;
    }

    // The blocks of a piece: from the beginning of the first one, and no more of them than a buffer holds.
    private (ulong Start, ulong End) Piece(ReadOnlySpan<IoVector> vectors, ulong offset)
    {
        ulong start = Align.Down(offset, _unit), end = offset;
        foreach (IoVector vector in vectors)
            end += vector.Length;
        return (start, Math.Min(end, start + BufferSize));
    }

    private static NativeBuffer Take()
    {
        lock (s_buffers)
        {
            while (s_buffers.Count == 0)
                Monitor.Wait(s_buffers);
            return s_buffers.Pop();
        }
    }

    private static void GiveBack(NativeBuffer buffer)
    {
        lock (s_buffers)
        {
            s_buffers.Push(buffer);
            Monitor.Pulse(s_buffers);
        }
    }

    private static void CopyToGuest(ReadOnlySpan<byte> data, ReadOnlySpan<IoVector> vectors)
    {
        foreach (IoVector vector in vectors)
        {
            int part = (int)Math.Min((ulong)vector.Length, (ulong)data.Length);
            data[..part].CopyTo(new GuestBuffer(vector.Address, (uint)part).Span);
            data = data[part..];
            if (data.IsEmpty)
                return;
        }
    }

    private static void CopyFromGuest(ReadOnlySpan<IoVector> vectors, Span<byte> data)
    {
        foreach (IoVector vector in vectors)
        {
            int part = (int)Math.Min((ulong)vector.Length, (ulong)data.Length);
            new GuestBuffer(vector.Address, (uint)part).Span.CopyTo(data);
            data = data[part..];
            if (data.IsEmpty)
                return;
        }
    }
}
