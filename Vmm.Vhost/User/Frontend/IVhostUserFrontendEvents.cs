using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Vhost.User.Frontend;

/// <summary>What a <see cref="VhostUserFrontend"/> has to say by itself. All but the mapping of shared memory is said with the owner's lock held.</summary>
public interface IVhostUserFrontendEvents
{
    /// <summary>The configuration space is another; <see cref="VhostUserFrontend.ReadConfig"/> gives the new one.</summary>
    void ConfigChanged();

    /// <summary>The back-end has set DEVICE_NEEDS_RESET in its status, and works no ring until the device is reset (VIRTIO 1.2 §2.1.2).</summary>
    void NeedsReset()
    {
    }

    /// <summary>The back-end is gone for good: it must not or cannot be connected to again, or came back as something else. No ring runs.</summary>
    /// <param name="reason">One line.</param>
    void Lost(string reason);

    /// <summary>The back-end is gone, and waited for. Requests of the driver wait, too.</summary>
    void Disconnected(string reason)
    {
    }

    /// <summary>The back-end is back, and goes on where it was.</summary>
    void Restored()
    {
    }

    /// <summary>The back-end maps a piece of a file into a shared-memory region of the device; see
    /// <see cref="IVhostUserBackendRequests.MapShared"/>.</summary>
    /// <remarks>Without the owner's lock, whose holder may wait for the back-end, which waits for this.</remarks>
    bool MapShared(in ShmemMapPayload mapping, FileDescriptor file) => false;

    /// <summary>The back-end takes a mapping away; without the owner's lock.</summary>
    bool UnmapShared(in ShmemMapPayload mapping) => false;
}
