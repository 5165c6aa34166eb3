using System.Buffers.Binary;
using System.Runtime.InteropServices;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Backends.Net;

/// <summary>A wire that is a stream: each Ethernet frame behind its length in four bytes, the highest first, as with QEMU's
/// <c>-netdev stream</c> and passt. It has one pair of queues.</summary>
/// <remarks>The other side is not trusted: a length that no frame has ends the wire, because nothing says where the next frame begins.</remarks>
internal sealed class StreamPort : IFramePort
{
    private const int PrefixSize = sizeof(uint);
    private const int MinFrame = 14;            // an Ethernet header
    private const int Patience = 100;           // milliseconds to wait until the other side takes the rest of a frame

    private readonly Lock _sending = new();
    private readonly UnixSocket _socket;
    private readonly string _name;
    // The length of the frame that comes, the frame, and the length of the next: so a frame takes one call, and what is here is never a whole frame
    // for which nobody waits.
    private readonly byte[] _input = new byte[PrefixSize + IFramePort.MaxFrame + PrefixSize];
    private readonly byte[] _prefix = GC.AllocateUninitializedArray<byte>(PrefixSize, pinned: true);     // vectors have addresses
    private readonly IoVector[] _vectors = new IoVector[VectoredIo.MaxVectors];
    // The rest of a frame that has gone out in part, which goes before the next one.
    private readonly byte[] _rest = GC.AllocateUninitializedArray<byte>(PrefixSize + IFramePort.MaxFrame, pinned: true);
    // A frame that is looked at, which the guest can no longer change.
    private readonly byte[] _frame = GC.AllocateUninitializedArray<byte>(IFramePort.MaxFrame, pinned: true);
    private int _restStart, _restEnd;
    private int _filled;
    private volatile string? _fate;

    /// <summary>Frames come and go by <paramref name="socket"/>, which is this object's from now on.</summary>
    /// <param name="socket">The stream.</param>
    /// <param name="name">What it is called in messages: "the wire to passt".</param>
    public StreamPort(UnixSocket socket, string name)
    {
        (_socket, _name) = (socket, name);
        socket.SetNonBlocking();
    }

    /// <summary>Whether packets to the loopback addresses, which no other host can be meant by, are refused (EACCES): passt of 2023 makes the host's own programs out of
    /// their receivers.</summary>
    public bool RefusesLoopback { get; init; }

    /// <inheritdoc/>
    public ulong Features => 0;

    /// <inheritdoc/>
    public string? Fate => _fate ?? (HasHungUp() ? Closed : null);

    /// <inheritdoc/>
    public bool CanBeGone => true;

    /// <inheritdoc/>
    public int? Mtu => null;

    private static string Closed => "was closed by the other side";

    /// <inheritdoc/>
    public FileDescriptor Receiver(int pair) => _socket;

    /// <inheritdoc/>
    public void Accept(ulong features)
    {
    }

    /// <inheritdoc/>
    public void Use(int pair, bool use)
    {
    }

    /// <inheritdoc/>
    public int TrySend(int pair, ReadOnlySpan<IoVector> vectors)
    {
        lock (_sending)
        {
            if (_fate is not null)
                return -Errnos.Ebadfd;
            nuint length = 0;
            for (int i = 1; i < vectors.Length; i++)
                length += vectors[i].Length;
            if (length is < MinFrame or > IFramePort.MaxFrame)
                return -Errnos.Einval;
            int error = TrySendKept();
            if (error < 0)
                return error == -Errnos.Eagain ? error : End(Closed);
            BinaryPrimitives.WriteUInt32BigEndian(_prefix, (uint)length);
            int count = vectors.Length;
            if (RefusesLoopback)
            {
                _ = VectoredIo.Copy(vectors[1..], _frame);
                if (Loopback.IsMeant(_frame.AsSpan(0, (int)length)))
                    return -Errnos.Eacces;
                _vectors[1] = new IoVector(Marshal.UnsafeAddrOfPinnedArrayElement(_frame, 0), length);
                count = 2;
            }
            else
            {
                vectors.CopyTo(_vectors);
            }
            _vectors[0] = new IoVector(Marshal.UnsafeAddrOfPinnedArrayElement(_prefix, 0), PrefixSize);
            int sent = VectoredIo.TryWrite(_socket, _vectors.AsSpan(0, count));
            if (sent < 0)
                return sent == -Errnos.Eagain ? sent : End(Closed);
            int total = PrefixSize + (int)length;
            return sent == total || TrySendOrKeepRest(_vectors.AsSpan(0, count), sent) ? total : End(Closed);
        }
    }

    /// <inheritdoc/>
    public int TryReceive(int pair, Span<byte> buffer)
    {
        while (_fate is null)
        {
            int wanted = PrefixSize;
            if (_filled >= PrefixSize)
            {
                uint length = BinaryPrimitives.ReadUInt32BigEndian(_input);
                if (length is < MinFrame or > IFramePort.MaxFrame)
                    return End($"had a frame of {length} bytes");
                int end = PrefixSize + (int)length;
                if (_filled >= end)
                    return Take((int)length, buffer);
                wanted = end + PrefixSize;
            }
            int count = _socket.TryRead(_input.AsSpan(_filled, wanted - _filled));
            if (count == 0)
                return End(Closed);
            if (count < 0)
                return count == -Errnos.Eagain ? count : End(Closed);
            _filled += count;
        }
        return -Errnos.Ebadfd;
    }

    /// <inheritdoc/>
    public override string ToString() => _name;

    /// <inheritdoc/>
    public void Dispose() => _socket.Dispose();

    private int Take(int length, Span<byte> buffer)
    {
        buffer[..IFramePort.HeaderSize].Clear();
        _input.AsSpan(PrefixSize, length).CopyTo(buffer[IFramePort.HeaderSize..]);
        int end = PrefixSize + length;
        _input.AsSpan(end, _filled - end).CopyTo(_input);
        _filled -= end;
        return IFramePort.HeaderSize + length;
    }

    // A part of a frame cannot be taken back, so the rest must follow, now or before the next frame. Linux sends to a Unix socket in pieces of some 36 KiB at
    // most (unix_stream_sendmsg of net/unix/af_unix.c, Linux 6.12), so a larger frame goes out in part when the other side is slow.
    private bool TrySendOrKeepRest(Span<IoVector> vectors, int sent)
    {
        long deadline = Environment.TickCount64 + Patience;
        for (int count = sent; ;)
        {
            while (count > 0 || (vectors.Length > 0 && vectors[0].Length == 0))
            {
                nuint part = Math.Min((nuint)count, vectors[0].Length);
                vectors[0] = new IoVector(vectors[0].Address + (nint)part, vectors[0].Length - part);
                count -= (int)part;
                if (vectors[0].Length == 0)
                    vectors = vectors[1..];
            }
            if (vectors.IsEmpty)
                return true;
            long left = deadline - Environment.TickCount64;
            if (left <= 0)
            {
                (_restStart, _restEnd) = (0, VectoredIo.Copy(vectors, _rest));
                return true;
            }
            Poll.Wait([new PollEntry(_socket, PollEvents.Writable)], (int)left);
            count = VectoredIo.TryWrite(_socket, vectors);
            if (count == -Errnos.Eagain)
                count = 0;
            else if (count < 0)
                return false;
        }
    }

    private int TrySendKept()
    {
        while (_restStart < _restEnd)
        {
            int sent = VectoredIo.TryWrite(
                _socket, [new IoVector(Marshal.UnsafeAddrOfPinnedArrayElement(_rest, _restStart), (nuint)(_restEnd - _restStart))]);
            if (sent < 0)
                return sent;
            _restStart += sent;
        }
        return 0;
    }

    private bool HasHungUp()
    {
        Span<PollEntry> entries = [new PollEntry(_socket, PollEvents.None)];
        Poll.Wait(entries, 0);
        return (entries[0].Happened & (PollEvents.HangUp | PollEvents.Error)) != 0;
    }

    private int End(string fate)
    {
        _fate ??= fate;
        return -Errnos.Ebadfd;
    }
}
