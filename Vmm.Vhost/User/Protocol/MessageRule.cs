using Needed = Vmm.Vhost.User.Protocol.VhostUserProtocolFeatures;

namespace Vmm.Vhost.User.Protocol;

/// <summary>What a request of a front-end must look like, before anybody looks into it: how long it is, how many descriptors come with
/// it, which feature it needs and whether it is answered. One table for both sides.</summary>
/// <param name="MinSize">The least bytes of payload.</param>
/// <param name="MaxSize">The most bytes of payload.</param>
/// <param name="MinDescriptors">The fewest descriptors.</param>
/// <param name="MaxDescriptors">The most descriptors.</param>
/// <param name="HasReply">Whether it has a reply of its own. The others are answered only if they ask for it.</param>
/// <param name="Needs">The protocol feature that must have been agreed on.</param>
public readonly record struct MessageRule(
    int MinSize, int MaxSize, int MinDescriptors, int MaxDescriptors, bool HasReply, VhostUserProtocolFeatures Needs)
{
    private static readonly MessageRule?[] s_rules = Build();

    /// <summary>The rule of <paramref name="request"/>, or null if there is no such request.</summary>
    public static MessageRule? Find(VhostUserRequest request) =>
        (uint)request < (uint)s_rules.Length ? s_rules[(uint)request] : null;

    private static MessageRule?[] Build()
    {
        var rules = new MessageRule?[(int)VhostUserRequest.GetVringBaseSkipDrain + 1];

        Add(VhostUserRequest.GetFeatures, 0, reply: true);
        Add(VhostUserRequest.SetFeatures, PayloadSize.U64);
        Add(VhostUserRequest.SetOwner, 0);
        Add(VhostUserRequest.ResetOwner, 0);
        AddRange(
            VhostUserRequest.SetMemTable,
            MemoryTableHeader.WireSize + MemoryRegionPayload.WireSize,
            MemoryTableHeader.WireSize + VhostUserHeader.MaxDescriptors * MemoryRegionPayload.WireSize,
            minDescriptors: 1, maxDescriptors: VhostUserHeader.MaxDescriptors);
        AddRange(VhostUserRequest.SetLogBase, PayloadSize.U64, LogPayload.WireSize, 0, 1);
        Add(VhostUserRequest.SetLogFd, 0, minDescriptors: 1, maxDescriptors: 1);
        Add(VhostUserRequest.SetVringNum, VringState.WireSize);
        Add(VhostUserRequest.SetVringAddr, VringAddress.WireSize);
        Add(VhostUserRequest.SetVringBase, VringState.WireSize);
        Add(VhostUserRequest.GetVringBase, VringState.WireSize, reply: true);
        Add(VhostUserRequest.SetVringKick, PayloadSize.U64, maxDescriptors: 1);
        Add(VhostUserRequest.SetVringCall, PayloadSize.U64, maxDescriptors: 1);
        Add(VhostUserRequest.SetVringErr, PayloadSize.U64, maxDescriptors: 1);
        Add(VhostUserRequest.GetProtocolFeatures, 0, reply: true);
        Add(VhostUserRequest.SetProtocolFeatures, PayloadSize.U64);
        Add(VhostUserRequest.GetQueueNum, 0, reply: true, needs: Needed.Mq);
        Add(VhostUserRequest.SetVringEnable, VringState.WireSize);
        Add(VhostUserRequest.SendRarp, PayloadSize.U64, needs: Needed.Rarp);
        Add(VhostUserRequest.NetSetMtu, PayloadSize.U64, needs: Needed.Mtu);
        Add(VhostUserRequest.SetBackendReqFd, 0, minDescriptors: 1, maxDescriptors: 1, needs: Needed.BackendReq);
        Add(VhostUserRequest.IotlbMsg, IotlbPayload.WireSize, reply: true);
        Add(VhostUserRequest.SetVringEndian, VringState.WireSize, needs: Needed.CrossEndian);
        AddRange(
            VhostUserRequest.GetConfig, ConfigHeader.WireSize, VhostUserHeader.MaxPayload, reply: true, needs: Needed.Config);
        AddRange(VhostUserRequest.SetConfig, ConfigHeader.WireSize + 1, VhostUserHeader.MaxPayload, needs: Needed.Config);
        AddRange(
            VhostUserRequest.CreateCryptoSession, PayloadSize.U64, VhostUserHeader.MaxPayload, reply: true, needs: Needed.CryptoSession);
        Add(VhostUserRequest.CloseCryptoSession, PayloadSize.U64, needs: Needed.CryptoSession);
        Add(VhostUserRequest.PostcopyAdvise, 0, reply: true, needs: Needed.PageFault);
        Add(VhostUserRequest.PostcopyListen, 0, needs: Needed.PageFault);
        Add(VhostUserRequest.PostcopyEnd, 0, reply: true, needs: Needed.PageFault);
        AddRange(
            VhostUserRequest.GetInflightFd, InflightPayload.MinWireSize, InflightPayload.WireSize, reply: true, needs: Needed.InflightShmFd);
        AddRange(
            VhostUserRequest.SetInflightFd, InflightPayload.MinWireSize, InflightPayload.WireSize, 1, 1, needs: Needed.InflightShmFd);
        Add(VhostUserRequest.GpuSetSocket, 0, minDescriptors: 1, maxDescriptors: 1);
        Add(VhostUserRequest.ResetDevice, 0, needs: Needed.ResetDevice);
        Add(VhostUserRequest.VringKick, VringState.WireSize, needs: Needed.InbandNotifications);
        Add(VhostUserRequest.GetMaxMemSlots, 0, reply: true, needs: Needed.ConfigureMemSlots);
        Add(VhostUserRequest.AddMemReg, SingleMemoryRegion.WireSize, minDescriptors: 1, maxDescriptors: 1, needs: Needed.ConfigureMemSlots);
        Add(VhostUserRequest.RemMemReg, SingleMemoryRegion.WireSize, maxDescriptors: 1, needs: Needed.ConfigureMemSlots);
        Add(VhostUserRequest.SetStatus, PayloadSize.U64, needs: Needed.Status);
        Add(VhostUserRequest.GetStatus, 0, reply: true, needs: Needed.Status);
        Add(VhostUserRequest.GetSharedObject, PayloadSize.Uuid, reply: true, needs: Needed.SharedObject);
        Add(
            VhostUserRequest.SetDeviceStateFd, DeviceStatePayload.WireSize, minDescriptors: 1, maxDescriptors: 1, reply: true,
            needs: Needed.DeviceState);
        Add(VhostUserRequest.CheckDeviceState, 0, reply: true, needs: Needed.DeviceState);
        Add(VhostUserRequest.GetShmemConfig, 0, reply: true, needs: Needed.Shmem);
        Add(VhostUserRequest.GetVringBaseSkipDrain, VringState.WireSize, reply: true, needs: Needed.GetVringBaseSkipDrain);
        return rules;

        void Add(
            VhostUserRequest request, int size, int minDescriptors = 0, int maxDescriptors = 0, bool reply = false, Needed needs = Needed.None) =>
            AddRange(request, size, size, minDescriptors, maxDescriptors, reply, needs);

        void AddRange(
            VhostUserRequest request,
            int minSize,
            int maxSize,
            int minDescriptors = 0,
            int maxDescriptors = 0,
            bool reply = false,
            Needed needs = Needed.None) =>
            rules[(int)request] = new MessageRule(minSize, maxSize, minDescriptors, maxDescriptors, reply, needs);
    }
}
