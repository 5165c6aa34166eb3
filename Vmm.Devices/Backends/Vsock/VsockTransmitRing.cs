using System.Runtime.InteropServices;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Backend;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Devices.Backends.Vsock;

/// <summary>The queue on which the guest sends.</summary>
internal sealed class VsockTransmitRing(VsockSwitch sockets) : IRingHandler
{
    // One byte more than a guest may send at a time, so that one which sends more is found out.
    private readonly byte[] _data = new byte[VsockCredit.Room + 1];
    private bool _isHeldUp;

    /// <inheritdoc/>
    public FileDescriptor? Ready => _isHeldUp ? sockets.RoomReady : null;

    /// <inheritdoc/>
    public void Process(BackendRing ring)
    {
        sockets.RoomReady.Drain();
        while (!(_isHeldUp = !sockets.HasRoom) && ring.TryTake(out DescriptorChain chain))
        {
            Send(chain);
            ring.Complete(chain.Head, 0);
        }
        ring.Notify();
    }

    /// <summary>What the guest has sent before the stop is still passed on: a guest that ended may have been kicking a moment ago.</summary>
    /// <inheritdoc/>
    public void Drain(BackendRing ring) => Process(ring);

    /// <inheritdoc/>
    public void Dispose()
    {
    }

    private void Send(DescriptorChain chain)
    {
        VsockHeader header = default;
        int read = chain.Read(0, MemoryMarshal.AsBytes(new Span<VsockHeader>(ref header)));
        if (read < VsockHeader.WireSize || chain.ReadableLength - VsockHeader.WireSize < header.Length)
        {
            sockets.Malformed();
            return;
        }
        Span<byte> data = _data.AsSpan(0, (int)Math.Min(header.Length, (uint)_data.Length));
        // Only packets of data have a payload: that of any other packet is ignored.
        if (header.Operation != VsockOperation.ReadWrite)
            data = [];
        chain.Read(VsockHeader.WireSize, data);
        sockets.Receive(header, data);
    }
}
