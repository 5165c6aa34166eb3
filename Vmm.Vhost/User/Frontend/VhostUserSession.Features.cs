using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Vhost.User.Frontend;

// The beginning of a session, what both sides can, and its reset. RESET_OWNER is deprecated, understood differently by everybody, has
// crashed back-ends, and is never sent.
public sealed partial class VhostUserSession
{
    private const VhostUserProtocolFeatures ForInband = VhostUserProtocolFeatures.BackendReq | VhostUserProtocolFeatures.ReplyAck;
    private const VhostUserProtocolFeatures ForSkipDrain =
        VhostUserProtocolFeatures.GetVringBaseInflight | VhostUserProtocolFeatures.InflightShmFd;

    private ulong _offered;

    /// <summary>The protocol features that were agreed on by <see cref="SetProtocolFeatures"/>.</summary>
    public VhostUserProtocolFeatures ProtocolFeatures { get; private set; }

    /// <summary>Whether the back-end offers <see cref="VirtioFeatures.VhostUserProtocolFeatures"/>: there are protocol features, and rings are
    /// enabled by <see cref="SetRingEnabled"/>. Known after <see cref="GetFeatures"/>.</summary>
    public bool HasProtocolFeatures => (_offered & VirtioFeatures.VhostUserProtocolFeatures) != 0;

    /// <summary>SET_OWNER: begins the session.</summary>
    public void SetOwner() => Tell(VhostUserRequest.SetOwner, default(ReadOnlySpan<byte>));

    /// <summary>GET_FEATURES: the virtio features that the back-end offers, with vhost's own bits.</summary>
    public ulong GetFeatures() => _offered = AskNumber(VhostUserRequest.GetFeatures);

    /// <summary>SET_FEATURES: what the driver accepted, sent as it is but for
    /// <see cref="VirtioFeatures.VhostUserProtocolFeatures"/>, which goes with it wherever it was offered: without it a back-end forgets
    /// about protocol features and enables every ring at once.</summary>
    public void SetFeatures(ulong features) =>
        Tell(VhostUserRequest.SetFeatures, features | (_offered & VirtioFeatures.VhostUserProtocolFeatures));

    /// <summary>GET_PROTOCOL_FEATURES: those that the back-end offers; it may offer bits that nobody here knows.</summary>
    public VhostUserProtocolFeatures GetProtocolFeatures()
    {
        NeedProtocolFeatures(VhostUserRequest.GetProtocolFeatures);
        return (VhostUserProtocolFeatures)AskNumber(VhostUserRequest.GetProtocolFeatures);
    }

    /// <summary>SET_PROTOCOL_FEATURES: agrees on <paramref name="features"/>, a subset of those offered.</summary>
    /// <exception cref="ArgumentException">One of them is of no use without another that is missing; a back-end would close the connection.</exception>
    public void SetProtocolFeatures(VhostUserProtocolFeatures features)
    {
        NeedProtocolFeatures(VhostUserRequest.SetProtocolFeatures);
        if (Usable(features) != features)
            throw new ArgumentException($"{features & ~Usable(features)} needs another protocol feature", nameof(features));
        lock (_request)
        {
            Check(VhostUserRequest.SetProtocolFeatures);
            Send(VhostUserRequest.SetProtocolFeatures, 0, Bytes((ulong)features), []);
            ProtocolFeatures = features;
        }
    }

    /// <summary><paramref name="features"/> without those of which another is missing that they need.</summary>
    public static VhostUserProtocolFeatures Usable(VhostUserProtocolFeatures features)
    {
        if ((features & ForInband) != ForInband)
            features &= ~VhostUserProtocolFeatures.InbandNotifications;
        if ((features & VhostUserProtocolFeatures.InflightShmFd) == 0)
            features &= ~VhostUserProtocolFeatures.GetVringBaseInflight;
        if ((features & ForSkipDrain) != ForSkipDrain)
            features &= ~VhostUserProtocolFeatures.GetVringBaseSkipDrain;
        return features;
    }

    /// <summary>GET_QUEUE_NUM: how many queues the back-end has at most; rings, or pairs of them with most network back-ends.</summary>
    public ulong GetQueueNum() => AskNumber(VhostUserRequest.GetQueueNum);

    /// <summary>SET_BACKEND_REQ_FD: gives the back-end a socket for its own requests; see <see cref="BackendRequestReceiver"/>.</summary>
    /// <param name="socket">Its end; it stays the caller's, to be closed.</param>
    public void SetBackendRequestSocket(FileDescriptor socket) =>
        Tell(VhostUserRequest.SetBackendReqFd, default(ReadOnlySpan<byte>), socket);

    /// <summary>RESET_DEVICE: disables all rings and forgets all state of the device; the session goes on.</summary>
    public void ResetDevice() => Tell(VhostUserRequest.ResetDevice, default(ReadOnlySpan<byte>));

    /// <summary>Waits until the back-end has worked all that was sent before, even where nothing is acknowledged.</summary>
    public void Barrier()
    {
        // It works messages in their order, and this one it must answer.
        if (!Agreed(VhostUserProtocolFeatures.ReplyAck))
            AskNumber(VhostUserRequest.GetFeatures);
    }

    private bool Agreed(VhostUserProtocolFeatures feature) => (ProtocolFeatures & feature) == feature;

    private void NeedProtocolFeatures(VhostUserRequest request)
    {
        if (!HasProtocolFeatures)
            throw NotAgreed(request, "the back-end offers no protocol features (feature bit 30)");
    }
}
