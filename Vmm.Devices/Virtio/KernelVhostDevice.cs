using Vmm.Vhost;
using Vmm.Vhost.Kernel;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.Confinement;

namespace Vmm.Devices.Virtio;

/// <summary>A device whose rings the host's kernel works.</summary>
internal abstract class KernelVhostDevice : VhostDevice
{
    /// <summary>Opens the back-end.</summary>
    /// <param name="name">The device in messages.</param>
    /// <param name="open">Opens it.</param>
    /// <param name="events">Where ring errors are waited for.</param>
    /// <exception cref="VhostException">It cannot be had; the message begins with <paramref name="name"/>.</exception>
    protected KernelVhostDevice(string name, Func<VhostKernelBackend> open, EventLoop events)
        : base(name, events)
    {
        try
        {
            Backend = open();
        }
        catch (VhostException e)
        {
            base.Dispose();
            throw new VhostException($"{name}: {e.Message}", e);
        }
    }

    /// <summary>The data plane.</summary>
    protected VhostKernelBackend Backend { get; }

    /// <inheritdoc/>
    public override IReadOnlyList<SystemCallRule> DriverCalls => [.. VhostKernelBackend.CommonSystemCalls, .. Backend.SystemCalls];

    /// <inheritdoc/>
    protected sealed override IVhostBackend? DataPlane => Backend;
}
