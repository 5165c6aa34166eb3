namespace Vmm.Vhost.Virtqueue;

/// <summary>A driver has put something into a ring that no driver may: the ring cannot be used until its device is reset.</summary>
public sealed class VirtqueueException(string message) : VhostException(message);
