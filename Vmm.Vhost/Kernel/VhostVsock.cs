using Vmm.Vhost.Native;
using Vmm.Vhost.Native.Confinement;

namespace Vmm.Vhost.Kernel;

/// <summary>vhost-vsock: sockets between host and guest. Ring 0 is for what the guest receives and ring 1 for what it sends; the
/// device's third queue, for events, is not the kernel's.</summary>
public sealed class VhostVsock : VhostKernelBackend
{
    /// <summary>The system calls that it makes once it is open, besides <see cref="VhostKernelBackend.CommonSystemCalls"/>.</summary>
    public static readonly IReadOnlyList<SystemCallRule> OwnSystemCalls = [SystemCallRule.Requests(VhostIoctls.VsockSetRunning)];

    /// <summary>The device node, unless another is given.</summary>
    public const string DefaultPath = "/dev/vhost-vsock";

    /// <summary>The lowest CID of a guest: 2 is the host (VIRTIO 1.2 §5.10.4).</summary>
    public const uint MinCid = 3;

    /// <summary>The highest CID of a guest: all ones is VMADDR_CID_ANY.</summary>
    public const uint MaxCid = 0xFFFF_FFFE;

    /// <summary>Opens the device and takes <paramref name="cid"/>, <see cref="MinCid"/> to <see cref="MaxCid"/>, until it is disposed.</summary>
    /// <exception cref="VhostException">The device is not there or not ours, or another guest has the CID.</exception>
    public VhostVsock(uint cid, string path = DefaultPath)
        : base(path, "vhost_vsock", ringCount: 2)
    {
        ulong value = cid;
        int result = TryCall(VhostIoctls.VsockSetGuestCid, ref value);
        if (result >= 0)
            return;
        Dispose();
        throw -result switch
        {
            Errnos.Eaddrinuse => new VhostException($"cid={cid} is in use by another guest: choose another"),
            Errnos.Einval => new VhostException($"cid={cid} is none that a guest can have: choose {MinCid} to {MaxCid}"),
            _ => Failure(VhostIoctls.VsockSetGuestCid, -result, null),
        };
    }

    /// <inheritdoc/>
    public override IReadOnlyList<SystemCallRule> SystemCalls => OwnSystemCalls;

    /// <inheritdoc/>
    private protected override bool RunsAsWhole => true;

    /// <inheritdoc/>
    private protected override void Run(IReadOnlyList<VringConfig> rings)
    {
        if (rings.Count != RingCount)
            throw new VhostException($"{Name}: the driver has not set up both data queues");
        int running = 1;
        Call(VhostIoctls.VsockSetRunning, ref running);
    }

    /// <inheritdoc/>
    private protected override void Halt(int index)
    {
        int running = 0;
        if (!CallOrWarn(VhostIoctls.VsockSetRunning, ref running))
            CloseByForce();
    }
}
