using Needed = Vmm.Vhost.User.Protocol.VhostUserProtocolFeatures;

namespace Vmm.Vhost.User.Protocol;

/// <summary>What a request of a back-end must look like, as <see cref="MessageRule"/> says it of a front-end's. They are all of one size.</summary>
/// <param name="Size">Bytes of payload.</param>
/// <param name="MinDescriptors">The fewest descriptors.</param>
/// <param name="MaxDescriptors">The most descriptors.</param>
/// <param name="HasReply">Whether it has a reply of its own. The others are answered only if they ask for it.</param>
/// <param name="Needs">The protocol features that must have been agreed on, beside <see cref="Needed.BackendReq"/>.</param>
public readonly record struct BackendMessageRule(
    int Size, int MinDescriptors, int MaxDescriptors, bool HasReply, VhostUserProtocolFeatures Needs)
{
    private static readonly BackendMessageRule?[] s_rules = Build();

    /// <summary>The rule of <paramref name="request"/>, or null if there is no such request.</summary>
    public static BackendMessageRule? Find(VhostUserBackendRequest request) =>
        (uint)request < (uint)s_rules.Length ? s_rules[(uint)request] : null;

    private static BackendMessageRule?[] Build()
    {
        var rules = new BackendMessageRule?[(int)VhostUserBackendRequest.ShmemUnmap + 1];

        Add(VhostUserBackendRequest.IotlbMsg, IotlbPayload.WireSize);
        Add(VhostUserBackendRequest.ConfigChange, 0, needs: Needed.Config);
        Add(VhostUserBackendRequest.VringHostNotifier, VringArea.WireSize, maxDescriptors: 1, needs: Needed.HostNotifier);
        Add(VhostUserBackendRequest.VringCall, VringState.WireSize, needs: Needed.InbandNotifications);
        Add(VhostUserBackendRequest.VringErr, VringState.WireSize, needs: Needed.InbandNotifications);
        Add(VhostUserBackendRequest.SharedObjectAdd, PayloadSize.Uuid, needs: Needed.SharedObject);
        Add(VhostUserBackendRequest.SharedObjectRemove, PayloadSize.Uuid, needs: Needed.SharedObject);
        Add(VhostUserBackendRequest.SharedObjectLookup, PayloadSize.Uuid, reply: true, needs: Needed.SharedObject);
        Add(VhostUserBackendRequest.ShmemMap, ShmemMapPayload.WireSize, 1, 1, needs: Needed.Shmem | Needed.BackendSendFd);
        Add(VhostUserBackendRequest.ShmemUnmap, ShmemMapPayload.WireSize, needs: Needed.Shmem);
        return rules;

        void Add(
            VhostUserBackendRequest request,
            int size,
            int minDescriptors = 0,
            int maxDescriptors = 0,
            bool reply = false,
            Needed needs = Needed.None) =>
            rules[(int)request] = new BackendMessageRule(size, minDescriptors, maxDescriptors, reply, needs);
    }
}
