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

    /// <summary>The device cannot go on with its back-end: the back-end is gone and must not or cannot be connected to again, or another one
    /// came in its place. No ring runs. Where <see cref="VhostUserFrontendOptions.Reconnect"/> allows it, <see cref="VhostUserFrontend.Reset"/>
    /// ends this state: the device then takes the features and the configuration of the back-end that is there, or of the next one.</summary>
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

    /// <summary>The driver's features are agreed on, and no ring runs on this connection yet. If the type of device needs a message
    /// before the first ring (NET_SET_MTU, for example), it is sent here, on every connection.</summary>
    /// <param name="session">The connection.</param>
    /// <param name="isAgain">Whether an earlier back-end has worked the rings that are about to start.</param>
    void Starting(VhostUserSession session, bool isAgain)
    {
    }

    /// <summary>The requests for shared memory that follow come from a new back-end: it does not know what an earlier one has mapped.
    /// Without the owner's lock.</summary>
    void SharedMemoryIsNew()
    {
    }

    /// <summary>The back-end maps a piece of a file into a shared-memory region of the device; see
    /// <see cref="IVhostUserBackendRequests.MapShared"/>.</summary>
    /// <remarks>Without the owner's lock, whose holder may wait for the back-end, which waits for this.</remarks>
    bool MapShared(in ShmemMapPayload mapping, FileDescriptor file) => false;

    /// <summary>The back-end takes a mapping away; without the owner's lock.</summary>
    bool UnmapShared(in ShmemMapPayload mapping) => false;
}
