using System.Net;

namespace Vmm.Devices.Backends.Net;

/// <summary>A port of the host's that leads into the guest.</summary>
/// <param name="Address">The host's address.</param>
/// <param name="HostPort">1 to 65535.</param>
/// <param name="GuestPort">1 to 65535.</param>
/// <param name="IsUdp">Whether it is one of UDP; if not, of TCP.</param>
public sealed record ForwardedPort(IPAddress Address, int HostPort, int GuestPort, bool IsUdp = false)
{
    /// <inheritdoc/>
    public override string ToString() => $"{(IsUdp ? "udp:" : "")}{Address}:{HostPort}:{GuestPort}";
}
