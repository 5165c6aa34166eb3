namespace Vmm.Devices.Backends.Net;

/// <summary>The network of a guest whose connections are the host's own: addresses that need no DHCP, because they are always these. A guest is used to
/// them from QEMU's and others' user networks.</summary>
public static class UserNetwork
{
    /// <summary>The guest's address.</summary>
    public const string Address = "10.0.2.15";

    /// <summary>Bits of its network.</summary>
    public const int PrefixLength = 24;

    /// <summary>The gateway. If the user says so it is the host: a connection to it goes to the host's 127.0.0.1.</summary>
    public const string Gateway = "10.0.2.2";

    /// <summary>The resolver, which asks the host's.</summary>
    public const string Resolver = "10.0.2.3";

    /// <summary>The largest packet that passt takes.</summary>
    public const int Mtu = 65520;
}
