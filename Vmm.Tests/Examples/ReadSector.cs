using Vmm.Vhost.Memory;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Frontend;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Tests.Examples;

/// <summary>The example of Vmm.Vhost/README.md, word for word.</summary>
internal static class ReadSector
{
    public static byte[] Read(string socket, ulong sector)
    {
        // Memory that is shared with the back-end, and a queue of 16 descriptors in it.
        using GuestMemory memory = GuestMemory.Create([(new GuestAddress(0), 1 << 20)]);
        using var queue = new SplitVirtqueueDriver(memory, new GuestAddress(0x1000), size: 16);
        using VhostUserFrontend disk = VhostUserFrontend.Open(new VhostUserFrontendOptions
        {
            Endpoint = VhostUserEndpoint.ConnectTo(socket),
            Device = "example",
            RingCount = 1,
            QueueSize = 16,
        });
        disk.SetFeatures(disk.Features & SplitVirtqueueDriver.SupportedFeatures);
        disk.SetMemory(memory);
        disk.Start([queue.Config]);

        // A request of virtio-blk: a header to read, the data and a status to write (VIRTIO 1.2 §5.2.6).
        GuestAddress header = new(0x8000), status = new(0x8010), data = new(0x9000);
        memory.Write(header, 0U);           // VIRTIO_BLK_T_IN
        memory.Write(header + 8, sector);
        memory.Write(status, (byte)0xFF);
        queue.Add(readable: [(header, 16)], writable: [(data, 512), (status, 1)]);
        queue.Kick();
        if (!queue.Wait(TimeSpan.FromSeconds(5)) || !queue.TryTake(out _, out _) || memory.Read<byte>(status) != 0)
            throw new IOException($"{disk.Name}: sector {sector} cannot be read");
        return memory.Slice(data, 512).ToArray();
    }
}
