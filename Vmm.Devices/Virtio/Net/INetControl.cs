using Vmm.Devices.Net;

namespace Vmm.Devices.Virtio.Net;

/// <summary>What a driver can ask for by a network device's control queue (VIRTIO 1.2 §5.1.6.5).</summary>
internal interface INetControl
{
    /// <summary>Uses the first <paramref name="count"/> pairs of queues.</summary>
    /// <returns>Whether there are so many, and the host could do it.</returns>
    bool TrySetQueuePairs(int count);

    /// <summary>Sets the offloads that the driver takes from now on, as feature bits.</summary>
    /// <returns>Whether all of them were accepted as features, and the host could do it.</returns>
    bool TrySetOffloads(ulong offloads);

    /// <summary>Changes the device's address.</summary>
    void SetMac(MacAddress address);

    /// <summary>Narrows or widens what the device receives.</summary>
    void SetReceiveFilter(ReceiveFilter filter);

    /// <summary>The driver has announced itself.</summary>
    void AcknowledgeAnnounce();
}
