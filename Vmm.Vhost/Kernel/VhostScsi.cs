using System.Text;
using Vmm.Vhost.Native.Confinement;

namespace Vmm.Vhost.Kernel;

/// <summary>vhost-scsi: the LUNs of a target in the kernel, which is found by the name of its port and was made in configfs. Ring 0 is for
/// control, ring 1 for events, the others for requests.</summary>
public sealed class VhostScsi : VhostKernelBackend
{
    /// <summary>The system calls that it makes once it is open, besides <see cref="VhostKernelBackend.CommonSystemCalls"/>.</summary>
    public static readonly IReadOnlyList<SystemCallRule> OwnSystemCalls =
        [SystemCallRule.Requests(VhostIoctls.ScsiSetEndpoint, VhostIoctls.ScsiClearEndpoint, VhostIoctls.ScsiSetEventsMissed)];

    /// <summary>The device node, unless another is given.</summary>
    public const string DefaultPath = "/dev/vhost-scsi";

    /// <summary>Rings that are not for requests.</summary>
    public const int FixedRings = 2;

    /// <summary>The most request rings that the kernel works (module parameter max_io_vqs, 128 by default).</summary>
    public const int MaxRequestRings = 128;

    /// <summary>The longest name of a target's port in bytes (linux/vhost.h, struct vhost_scsi_target: 224 with the zero byte at the end).</summary>
    public const int MaxWwpnLength = VhostScsiTarget.Wwpn.Length - 1;

    private readonly VhostScsiTarget _target;

    /// <summary>Opens the device and makes sure that the target is there and free.</summary>
    /// <param name="wwpn">The name of the target's port: a directory under /sys/kernel/config/target/vhost. 1 to <see cref="MaxWwpnLength"/>
    /// printable ASCII characters.</param>
    /// <param name="tpgt">The number of the target portal group, N of its directory tpgt_N.</param>
    /// <param name="requestRings">How many request rings, 1 to <see cref="MaxRequestRings"/>.</param>
    /// <param name="path">The device node.</param>
    /// <exception cref="ArgumentException">One of the values is not what is said here. The device was not opened.</exception>
    /// <exception cref="VhostException">The device is not there or not ours, or there is no such target that is free.</exception>
    public VhostScsi(string wwpn, ushort tpgt, int requestRings, string path = DefaultPath)
        : base(path, "vhost_scsi", CountRings(wwpn, requestRings))
    {
        _target = new VhostScsiTarget { AbiVersion = VhostScsiTarget.CurrentAbi, VhostTpgt = tpgt };
        Encoding.ASCII.GetBytes(wwpn, _target.VhostWwpn);
        try
        {
            int version = 0;
            Call(VhostIoctls.ScsiGetAbiVersion, ref version);
            if (version < VhostScsiTarget.CurrentAbi)
                throw new VhostException($"{Name}: speaks version {version} of its interface, and {VhostScsiTarget.CurrentAbi} is needed");
            // The kernel takes no endpoint before it has been told of memory, though no ring is in it yet.
            VhostMemory none = default;
            Call(VhostIoctls.SetMemTable, ref none);
            SetEndpoint();
            ClearEndpoint();
            SpreadOverWorkers(FixedRings + 1);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public override IReadOnlyList<SystemCallRule> SystemCalls => OwnSystemCalls;

    /// <inheritdoc/>
    private protected override bool RunsAsWhole => true;

    /// <inheritdoc/>
    private protected override void Run(IReadOnlyList<VringConfig> rings)
    {
        // Events that the last driver missed are none of the next one's.
        uint missed = 0;
        Call(VhostIoctls.ScsiSetEventsMissed, ref missed);
        SetEndpoint();
    }

    /// <inheritdoc/>
    private protected override void Halt(int index)
    {
        if (!ClearEndpoint())
            CloseByForce();
    }

    // Before the device is opened.
    private static int CountRings(string wwpn, int requestRings)
    {
        ArgumentNullException.ThrowIfNull(wwpn);
        if (wwpn.Length is 0 or > MaxWwpnLength || wwpn.AsSpan().ContainsAnyExceptInRange('!', '~'))
            throw new ArgumentException($"a target's name has 1 to {MaxWwpnLength} printable ASCII characters", nameof(wwpn));
        if (requestRings is < 1 or > MaxRequestRings)
            throw new ArgumentOutOfRangeException(nameof(requestRings), requestRings, $"there are 1 to {MaxRequestRings} request rings");
        return FixedRings + requestRings;
    }

    private void SetEndpoint()
    {
        VhostScsiTarget target = _target;
        Call(VhostIoctls.ScsiSetEndpoint, ref target, "there is no such target, it has no nexus, or another guest has it: look into /sys/kernel/config/target/vhost");
    }

    private bool ClearEndpoint()
    {
        VhostScsiTarget target = _target;
        return CallOrWarn(VhostIoctls.ScsiClearEndpoint, ref target);
    }
}
