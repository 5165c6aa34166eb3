using System.Runtime.InteropServices;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Backend;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Devices.Backends.Vsock;

/// <summary>The queue on which the guest receives. A packet for which it has no buffer is kept until it has; more are not made.</summary>
internal sealed class VsockReceiveRing(VsockSwitch sockets) : IRingHandler
{
    private readonly VsockPacket _packet = new();

    /// <inheritdoc/>
    public FileDescriptor? Ready => sockets.Ready;

    /// <inheritdoc/>
    public void Process(BackendRing ring)
    {
        while ((_packet.IsThere || sockets.TryMakePacket(_packet)) && ring.TryTake(out DescriptorChain chain))
            Fill(ring, chain);
        if (_packet.IsThere)
            sockets.AttendToHost();
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

    /// <summary>Drops the packet that waits: its connection has ended. The ring does not run.</summary>
    public void Clear() => _packet.Clear();

    private void Fill(BackendRing ring, DescriptorChain chain)
    {
        ulong room = chain.WritableLength;
        int data = _packet.Data.Length;
        if (room < VsockHeader.WireSize || (data > 0 && room == VsockHeader.WireSize))
        {
            ring.Complete(chain.Head, 0);   // of no use: the next one
            return;
        }
        int count = (int)Math.Min(room - VsockHeader.WireSize, (ulong)data);
        VsockHeader header = _packet.Header;
        header.Length = (uint)count;
        chain.Write(0, MemoryMarshal.AsBytes(new ReadOnlySpan<VsockHeader>(in header)));
        chain.Write(VsockHeader.WireSize, _packet.Data[..count]);
        ring.Complete(chain.Head, (uint)(VsockHeader.WireSize + count));
        _packet.Advance(count);
    }
}
