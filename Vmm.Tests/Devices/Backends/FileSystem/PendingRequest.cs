using Vmm.Tests.Conformance;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Memory;
using static Vmm.Tests.Conformance.FuseClient;

namespace Vmm.Tests.Devices.Backends.FileSystem;

/// <summary>A request that is on its way, on the queue of high priority: nobody waits for it but the one who asks.</summary>
internal sealed class PendingRequest
{
    /// <summary>Its number, by which it can be interrupted.</summary>
    public const ulong Number = 99;

    private readonly FuseGuest _guest;
    private readonly GuestAddress _reply;
    private readonly int _id;

    /// <summary>Sends it.</summary>
    /// <param name="guest">Whose.</param>
    /// <param name="code">FUSE_* of linux/fuse.h.</param>
    /// <param name="node">The file.</param>
    /// <param name="arguments">What stands behind the header.</param>
    /// <param name="room">Bytes for the reply behind its header.</param>
    public PendingRequest(FuseGuest guest, uint code, ulong node, byte[] arguments, int room = 0)
    {
        _guest = guest;
        GuestHeap heap = guest.Peer.Heap;
        byte[] request = [.. Bytes((uint)(40 + arguments.Length), code), .. Bytes(Number, node), .. Bytes(0U, 0U, 0U, 0U), .. arguments];
        GuestAddress address = heap.Allocate(request.Length);
        request.CopyTo(heap.Memory.Slice(address, request.Length));
        _reply = heap.Allocate(16 + room);
        _id = guest.Peer.Queues[0].Submit(new PeerBuffer(address, request.Length, false), new PeerBuffer(_reply, 16 + room, true));
        guest.Ended.Remove(_id);    // one that ended before had the same number
    }

    public bool HasEnded
    {
        get
        {
            while (_guest.Peer.Queues[0].TryTake(out (int Id, int Written) result))
                _guest.Ended.Add(result.Id);
            return _guest.Ended.Contains(_id);
        }
    }

    /// <summary>Waits for its end.</summary>
    /// <returns>0, or a negated error number.</returns>
    public int Await()
    {
        Eventually.True(() => HasEnded, () => "it is still waited for");
        return _guest.Peer.Heap.Memory.Read<int>(_reply + 4);
    }
}
