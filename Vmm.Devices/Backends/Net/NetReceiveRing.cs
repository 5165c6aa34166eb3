using System.Buffers.Binary;
using NLog;
using Vmm.Devices.Net;
using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Backend;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Devices.Backends.Net;

/// <summary>A queue on which the guest receives frames. One frame is kept for which there is no buffer; those behind it wait where they
/// come from, whose business it is how many.</summary>
internal sealed class NetReceiveRing : IRingHandler
{
    private const int NotifyInterval = 32;
    private const int CountOffset = 10;         // num_buffers of struct virtio_net_hdr_v1
    private const int OldHeaderSize = 10;
    private const int MaxDropped = 256;         // frames in one turn that this driver cannot take

    // How long the ring waits after an error that is not final. (An attempt is repeated at once before: a socket tells of a datagram sent before,
    // once, and in the place of what has come.)
    private static readonly TimeSpan s_retryDelay = TimeSpan.FromMilliseconds(10);

    private static readonly BoundedLog s_log = new("Vmm.Devices.Net");

    private readonly IFramePort _port;
    private readonly int _pair;
    private readonly int _skipped;              // of the header that the port gives, for a driver of old
    private readonly bool _isMergeable;
    private readonly ulong _features;
    private readonly Action<string> _failed;
    private readonly TimerFd _retry = new();
    private readonly byte[] _frame = new byte[IFramePort.HeaderSize + IFramePort.MaxFrame];
    private readonly (ushort Head, uint Length)[] _parts;
    private int _length;                        // 0: there is no frame
    private int _placed;
    private int _count;
    private GuestBuffer _countLow;
    private GuestBuffer _countHigh;
    private bool _waitsForTime;
    private bool _hasFailed;
    private bool _hasComplained;
    private bool _hasToldError;

    /// <summary>Receives by <paramref name="pair"/> of <paramref name="port"/> into <paramref name="ring"/>.</summary>
    /// <param name="port">Where frames come from.</param>
    /// <param name="pair">By which pair.</param>
    /// <param name="ring">Where they go.</param>
    /// <param name="headerSize">Bytes of the header before each frame: 12, or 10 of a driver of old.</param>
    /// <param name="failed">Called, once, with the reason when nothing can come any more.</param>
    public NetReceiveRing(IFramePort port, int pair, BackendRing ring, int headerSize, Action<string> failed)
    {
        _port = port;
        _pair = pair;
        _skipped = IFramePort.HeaderSize - headerSize;
        _features = ring.Features;
        _failed = failed;
        _isMergeable = (ring.Features & NetFeatures.MrgRxbuf) != 0;
        _parts = new (ushort, uint)[ring.Size];
        _port.Use(pair, use: true);
    }

    /// <inheritdoc/>
    public FileDescriptor? Ready => _length > 0 || _hasFailed ? null : _waitsForTime ? _retry : _port.Receiver(_pair);

    /// <inheritdoc/>
    public void Process(BackendRing ring)
    {
        int frames = 0;
        if (_waitsForTime)
            _retry.Drain();
        _waitsForTime = false;
        while (HasFrame() && TryPlace(ring))
        {
            if (++frames % NotifyInterval == 0)
                ring.Notify();
        }
        ring.Notify();
    }

    /// <inheritdoc/>
    public void Drain(BackendRing ring)
    {
        // Puts the buffers of a frame back that is not whole yet: the next start places the frame anew.
        while (_count > 0)
            ring.PutBack(_parts[--_count].Head);
        _placed = 0;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _port.Use(_pair, use: false);
        _retry.Dispose();
    }

    private bool HasFrame()
    {
        if (_length > 0)
            return true;
        for (int dropped = 0; dropped < MaxDropped; dropped++)
        {
            int count = _port.TryReceive(_pair, _frame);
            if (count < 0 && count != -Errnos.Eagain && !Errnos.IsOfDescriptor(-count))
                count = _port.TryReceive(_pair, _frame);
            if (count == -Errnos.Eagain)
                return false;
            if (count < 0)
            {
                Fail(-count);
                return false;
            }
            if (count <= IFramePort.HeaderSize || !FrameHeader.Suits(_frame, _features))
                continue;   // no frame, or one made for the driver before, which accepted more offloads
            if (_skipped > 0)
                _frame.AsSpan(0, OldHeaderSize).CopyTo(_frame.AsSpan(_skipped));
            else
                BinaryPrimitives.WriteUInt16LittleEndian(_frame.AsSpan(CountOffset), 1);
            (_length, _placed) = (count - _skipped, 0);
            return true;
        }
        return false;
    }

    private void Fail(int errno)
    {
        var error = new ErrnoException("cannot receive", errno);
        if (Errnos.IsOfDescriptor(errno))
        {
            _hasFailed = true;
            _failed(error.Message);
            return;
        }
        s_log.Log(_hasToldError ? LogLevel.Debug : LogLevel.Warn, "{Port}: {Error}: it is tried again", _port, error.Message);
        _hasToldError = true;
        _retry.Set(s_retryDelay);
        _waitsForTime = true;
    }

    // False when there are not enough buffers: those that there were are kept.
    private bool TryPlace(BackendRing ring)
    {
        while (_placed < _length)
        {
            if (!ring.TryTake(out DescriptorChain chain))
                return false;
            ulong room = chain.WritableLength;
            if (_count == 0 && (room < (ulong)(IFramePort.HeaderSize - _skipped) || (!_isMergeable && room < (ulong)_length)))
            {
                ring.Complete(chain.Head, 0);
                Complain(room);
                if (!_isMergeable)
                    _length = 0;
                return true;
            }
            if (_count == 0 && _skipped == 0)
            {
                _countLow = ByteAt(chain.Writable, CountOffset);
                _countHigh = ByteAt(chain.Writable, CountOffset + 1);
            }
            int count = chain.Write(0, _frame.AsSpan(_skipped + _placed, _length - _placed));
            _parts[_count++] = (chain.Head, (uint)count);
            _placed += count;
        }
        if (_count > 1)
        {
            // The first buffer says how many there are (VIRTIO 1.2 §5.1.6.4); it is not given back yet.
            _countLow.Span[0] = (byte)_count;
            _countHigh.Span[0] = (byte)(_count >> 8);
        }
        for (int i = 0; i < _count; i++)
            ring.Complete(_parts[i].Head, _parts[i].Length);
        _length = _placed = _count = 0;
        return true;
    }

    private static GuestBuffer ByteAt(ReadOnlySpan<GuestBuffer> buffers, uint offset)
    {
        foreach (GuestBuffer buffer in buffers)
        {
            if (offset < buffer.Length)
                return new GuestBuffer(buffer.Address + (nint)offset, 1);
            offset -= buffer.Length;
        }
        return default;     // not reached: the buffers have room for the header
    }

    private void Complain(ulong room)
    {
        s_log.Log(
            _hasComplained ? LogLevel.Debug : LogLevel.Warn,
            "a buffer of the guest's has {Room} bytes: it cannot hold a frame of {Length}", room, _length);
        _hasComplained = true;
    }
}
