using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Vhost.User.Frontend;

/// <summary>The requests that a back-end may make to its front-end (vhost-user.rst, "Back-end message types"). A request that is not implemented is refused.</summary>
/// <remarks>Called on the thread that serves the <see cref="BackendRequestReceiver"/>, while another thread may wait for this very back-end
/// to answer: an implementation must not wait for that thread, nor for a lock that it holds. Descriptors are closed after the call;
/// mappings stay.</remarks>
public interface IVhostUserBackendRequests
{
    /// <summary>The requests that follow come from a back-end that has just been connected to: it does not know what an earlier one asked for.</summary>
    void BackendIsNew()
    {
    }

    /// <summary>IOTLB_MSG: the back-end misses an entry, or may not access what it has.</summary>
    /// <returns>Whether it is done; as with all of these.</returns>
    bool Iotlb(in IotlbPayload message) => false;

    /// <summary>CONFIG_CHANGE_MSG: the configuration space is another.</summary>
    bool ConfigChanged() => false;

    /// <summary>VRING_HOST_NOTIFIER_MSG: the driver may kick a ring by writing to a piece of a file; without a file, no more.</summary>
    bool HostNotifier(in VringArea area, FileDescriptor? file) => false;

    /// <summary>VRING_CALL: a call by message.</summary>
    bool RingCall(int ring) => false;

    /// <summary>VRING_ERR: the back-end cannot go on with a ring, by message.</summary>
    bool RingError(int ring) => false;

    /// <summary>SHARED_OBJECT_ADD: the back-end has an object of that name.</summary>
    bool SharedObjectAdd(Guid name) => false;

    /// <summary>SHARED_OBJECT_REMOVE: it has it no more.</summary>
    bool SharedObjectRemove(Guid name) => false;

    /// <summary>SHARED_OBJECT_LOOKUP: the back-end looks for an object.</summary>
    /// <returns>It, which stays the implementation's; null if there is none.</returns>
    FileDescriptor? SharedObjectLookup(Guid name) => null;

    /// <summary>SHMEM_MAP: maps a piece of <paramref name="file"/> into a shared-memory region of the device. Over what is mapped
    /// there already it must fail.</summary>
    bool MapShared(in ShmemMapPayload mapping, FileDescriptor file) => false;

    /// <summary>SHMEM_UNMAP: takes away exactly one mapping.</summary>
    bool UnmapShared(in ShmemMapPayload mapping) => false;
}
