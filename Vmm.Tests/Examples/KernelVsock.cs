using Vmm.Vhost.Kernel;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Tests.Examples;

/// <summary>The example of Vmm.Vhost/README.md for the kernel's data planes, word for word.</summary>
internal static class KernelVsock
{
    public static VhostVsock Start(uint cid, GuestMemory memory, SplitVirtqueueDriver receive, SplitVirtqueueDriver send)
    {
        var vsock = new VhostVsock(cid);   // /dev/vhost-vsock; an error says what to do: modprobe vhost_vsock, or its group
        try
        {
            vsock.SetFeatures(vsock.Features & SplitVirtqueueDriver.SupportedFeatures);
            vsock.SetMemory(memory);
            vsock.Start([receive.Config, send.Config]);   // queues 0 and 1; the kernel works both or none
            return vsock;
        }
        catch
        {
            vsock.Dispose();
            throw;
        }
    }
}
