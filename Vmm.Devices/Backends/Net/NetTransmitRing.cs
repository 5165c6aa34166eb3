using System.Runtime.InteropServices;
using NLog;
using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Backend;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Devices.Backends.Net;

/// <summary>A queue on which the guest sends frames.</summary>
internal sealed class NetTransmitRing : IRingHandler
{
    private const int NotifyInterval = 32;          // frames after which the driver may have its buffers back
    private const int MaxPieces = 64;               // a frame in more is copied together first
    private const int PatienceMilliseconds = 50;    // in one turn of the ring

    private static readonly BoundedLog s_log = new("Vmm.Devices.Net");

    private readonly IFramePort _port;
    private readonly int _pair;
    private readonly int _headerSize;
    // Pinned, because vectors have addresses: first the header, which the guest cannot change any more, then room for a whole frame.
    private readonly byte[] _copy = GC.AllocateUninitializedArray<byte>(IFramePort.HeaderSize + IFramePort.MaxFrame, pinned: true);
    private readonly IoVector[] _vectors = new IoVector[1 + MaxPieces];
    private bool _hasComplained;
    private bool _hasWaited;       // in this turn

    /// <summary>Sends by <paramref name="pair"/> of <paramref name="port"/>.</summary>
    /// <param name="port">Where to.</param>
    /// <param name="pair">Which pair.</param>
    /// <param name="headerSize">Bytes of the header before each frame: 12, or 10 of a driver of old.</param>
    public NetTransmitRing(IFramePort port, int pair, int headerSize)
    {
        _port = port;
        _pair = pair;
        _headerSize = headerSize;
        _vectors[0] = new IoVector(AddressOf(0), IFramePort.HeaderSize);
        _copy.AsSpan(0, IFramePort.HeaderSize).Clear();
    }

    /// <inheritdoc/>
    public FileDescriptor? Ready => null;

    /// <inheritdoc/>
    public void Process(BackendRing ring)
    {
        int frames = 0;
        _hasWaited = false;
        while (ring.TryTake(out DescriptorChain chain))
        {
            Send(chain);
            ring.Complete(chain.Head, 0);
            if (++frames % NotifyInterval == 0)
                ring.Notify();
        }
        ring.Notify();
    }

    /// <inheritdoc/>
    public void Drain(BackendRing ring)
    {
    }

    /// <inheritdoc/>
    public void Dispose()
    {
    }

    private void Send(DescriptorChain chain)
    {
        ulong total = chain.ReadableLength;
        if (total <= (ulong)_headerSize || total - (ulong)_headerSize > IFramePort.MaxFrame)
        {
            Complain($"{total} bytes, with a header of {_headerSize}");
            return;
        }
        chain.Read(0, _copy.AsSpan(0, _headerSize));
        int count = Gather(chain, (int)total - _headerSize);
        int result = _port.TrySend(_pair, _vectors.AsSpan(0, count));
        // Once only: a turn has up to 256 frames, and whoever wants the ring to stop waits for its end.
        if (result == -Errnos.Eagain && !_hasWaited)
        {
            _hasWaited = true;
            Poll.Wait([new PollEntry(_port.Receiver(_pair), PollEvents.Writable)], PatienceMilliseconds);
            result = _port.TrySend(_pair, _vectors.AsSpan(0, count));
        }
        if (result < 0)
            Complain(new ErrnoException("cannot be sent", -result).Message);
    }

    // Where the frame is, behind its header.
    private int Gather(DescriptorChain chain, int length)
    {
        uint skip = (uint)_headerSize;
        int count = 1;
        foreach (GuestBuffer buffer in chain.Readable)
        {
            uint skipped = Math.Min(skip, buffer.Length);
            skip -= skipped;
            if (skipped == buffer.Length)
                continue;
            if (count == _vectors.Length)
            {
                chain.Read((ulong)_headerSize, _copy.AsSpan(IFramePort.HeaderSize, length));
                _vectors[1] = new IoVector(AddressOf(IFramePort.HeaderSize), (nuint)length);
                return 2;
            }
            _vectors[count++] = new IoVector(buffer.Address + (nint)skipped, buffer.Length - skipped);
        }
        return count;
    }

    private nint AddressOf(int offset) => Marshal.UnsafeAddrOfPinnedArrayElement(_copy, offset);

    private void Complain(string what)
    {
        s_log.Log(_hasComplained ? LogLevel.Debug : LogLevel.Warn, "a frame of the guest's is dropped: {What}", what);
        _hasComplained = true;
    }
}
