using System.Buffers.Binary;
using Vmm.Vhost;
using Vmm.Vhost.Kernel;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Virtio.Vsock;

/// <summary>A socket device (VIRTIO 1.2 §5.10). The kernel works the receive and transmit queues. The event queue, after them, is the
/// VMM's: its only event tells that all connections are gone because the guest was moved, so the driver's buffers wait in it.</summary>
internal sealed class VsockDevice(VsockDeviceOptions options, EventLoop events)
    : KernelVhostDevice($"--vsock cid={options.Cid}", () => new VhostVsock(options.Cid), events)
{
    private const int ReceiveQueue = 0;
    private const int EventQueues = 1;

    // Linux fills the receive queue anew when half of it is used, with buffers of 4 KiB that it allocates and clears first, two descriptors each. A connection
    // waits meanwhile: for 64 of them 1 ms in the repeatable mode of the emulated host, for 16 of them 0.2 ms (docs/measurements.md).
    private const int ReceiveQueueSize = 64;
    private const int QueueSize = 128;

    /// <inheritdoc/>
    public override VirtioDeviceType Type => VirtioDeviceType.Vsock;

    /// <inheritdoc/>
    // Without indirect descriptors: for a packet, which is a header and a buffer, a driver would allocate a table, and the kernel map and
    // read it. Two descriptors of the ring cost less.
    public override ulong Features => Backend.Features & ~VirtioFeatures.IndirectDescriptors;

    /// <inheritdoc/>
    public override int QueueCount => Backend.RingCount + EventQueues;

    /// <inheritdoc/>
    public override int ConfigSize => sizeof(ulong);

    /// <inheritdoc/>
    public override int MaxQueueSize(int queue) => queue == ReceiveQueue ? ReceiveQueueSize : QueueSize;

    /// <inheritdoc/>
    public override void ReadConfig(Span<byte> config) => BinaryPrimitives.WriteUInt64LittleEndian(config, options.Cid);
}
