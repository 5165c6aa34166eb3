using Vmm.Vhost.Native;
using Vmm.Vhost.Native.Confinement;

namespace Vmm.Vhost.Kernel;

/// <summary>vhost-net: one pair of queues of a network device, ring 0 for what the guest receives and ring 1 for what it sends. The
/// other side is a tap or macvtap queue, or a packet socket.</summary>
/// <remarks>Each packet's virtio_net_hdr is made and read by the tap, which was opened with IFF_VNET_HDR: so
/// VHOST_NET_F_VIRTIO_NET_HDR is never accepted. The tap must use headers of 12 bytes (TUNSETVNETHDRSZ).</remarks>
public sealed class VhostNet : VhostKernelBackend
{
    /// <summary>The system calls that it makes once it is open, besides <see cref="VhostKernelBackend.CommonSystemCalls"/>.</summary>
    public static readonly IReadOnlyList<SystemCallRule> OwnSystemCalls = [SystemCallRule.Requests(VhostIoctls.NetSetBackend)];

    /// <summary>The device node, unless another is given.</summary>
    public const string DefaultPath = "/dev/vhost-net";

    private readonly FileDescriptor _tap;

    /// <summary>Opens the device. <paramref name="tap"/> still belongs to the caller, and must stay open while rings run.</summary>
    /// <exception cref="ArgumentNullException">A value is null. The device was not opened.</exception>
    /// <exception cref="VhostException">The device is not there or not ours.</exception>
    public VhostNet(FileDescriptor tap, string path = DefaultPath)
        : base(path, "vhost_net", CountRings(tap)) => _tap = tap;

    /// <inheritdoc/>
    public override IReadOnlyList<SystemCallRule> SystemCalls => OwnSystemCalls;

    // Before the device is opened.
    private static int CountRings(FileDescriptor tap)
    {
        ArgumentNullException.ThrowIfNull(tap);
        return 2;
    }

    /// <inheritdoc/>
    private protected override void Run(IReadOnlyList<VringConfig> rings)
    {
        using HeldDescriptor tap = _tap.Hold();
        foreach (VringConfig ring in rings)
        {
            var backend = new VhostVringFile { Index = (uint)ring.Index, Fd = tap.Number };
            Call(VhostIoctls.NetSetBackend, ref backend, "the network side must be a tap or macvtap device");
        }
    }

    /// <inheritdoc/>
    private protected override void Halt(int index)
    {
        var backend = new VhostVringFile { Index = (uint)index, Fd = VhostVringFile.Unbind };
        if (!CallOrWarn(VhostIoctls.NetSetBackend, ref backend))
            CloseByForce();
    }
}
