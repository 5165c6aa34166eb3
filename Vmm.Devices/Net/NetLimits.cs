namespace Vmm.Devices.Net;

/// <summary>What bounds the values of a network device.</summary>
public static class NetLimits
{
    /// <summary>The smallest MTU: what IPv4 needs (VIRTIO 1.2 §5.1.4.1).</summary>
    public const int MinMtu = 68;

    /// <summary>The largest MTU: it has 16 bits.</summary>
    public const int MaxMtu = 65535;

    /// <summary>The most bytes of an interface's name: IFNAMSIZ less the terminating zero (linux/if.h).</summary>
    public const int MaxInterfaceName = 15;
}
