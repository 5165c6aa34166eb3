using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.User.Protocol;
using Feature = Vmm.Vhost.User.Protocol.VhostUserProtocolFeatures;
using Request = Vmm.Vhost.User.Protocol.VhostUserRequest;

namespace Vmm.Tests.Fuzz;

/// <summary>What driver and front-end agree on.</summary>
internal readonly record struct FuzzPlan(ulong Features, int Size)
{
    public static FuzzPlan Make(Random random)
    {
        bool isPacked = random.Next(2) == 0;
        ulong features = VirtioFeatures.Version1 | (isPacked ? VirtioFeatures.RingPacked : 0)
            | (random.Next(2) == 0 ? VirtioFeatures.EventIndex : 0) | (random.Next(2) == 0 ? VirtioFeatures.IndirectDescriptors : 0)
            | (random.Next(4) == 0 ? VirtioFeatures.LogAll : 0) | (random.Next(5) != 0 ? VirtioFeatures.VhostUserProtocolFeatures : 0);
        return new FuzzPlan(features, isPacked ? random.Next(1, 17) : 1 << random.Next(5));
    }
}

/// <summary>Sessions as front-ends have them, to be broken: the corpus.</summary>
internal static class FuzzSessions
{
    /// <summary>Where the guest's memory is for the guest.</summary>
    public const ulong Guest = 0x100000;

    private const ulong User = 0x7000_0000_0000;

    private const Feature AllFeatures =
        Feature.Mq | Feature.LogShmFd | Feature.Rarp | Feature.ReplyAck | Feature.Mtu | Feature.BackendReq | Feature.Config
        | Feature.BackendSendFd | Feature.InflightShmFd | Feature.ResetDevice | Feature.ConfigureMemSlots | Feature.Status
        | Feature.DeviceState | Feature.Shmem | Feature.GetVringBaseInflight | Feature.GetVringBaseSkipDrain;

    public static List<FuzzMessage> Make(Random random, FuzzPlan plan)
    {
        var session = new List<FuzzMessage>();
        (ulong features, uint size) = (plan.Features, (uint)plan.Size);
        bool isPacked = (features & VirtioFeatures.RingPacked) != 0;
        Feature protocol = AllFeatures | (random.Next(3) == 0 ? Feature.InbandNotifications : 0);
        session.Add(Message(Request.GetFeatures));
        session.Add(Message(Request.GetProtocolFeatures));
        session.Add(Message(Request.SetProtocolFeatures, (ulong)protocol));
        session.Add(Message(Request.SetOwner));
        Extra(random, session);
        session.Add(Message(Request.SetFeatures, features));
        if (random.Next(3) != 0)
            session.Add(MemoryTable());
        else
            session.Add(new FuzzMessage((uint)Request.AddMemReg, [.. new byte[8], .. Bytes(Region())], DescriptorKind.Memory));
        if (random.Next(3) == 0)
            session.Add(new FuzzMessage((uint)Request.SetInflightFd, Bytes(new InflightPayload(0x4000, 0, 3, 16)), DescriptorKind.Inflight));
        if (random.Next(3) == 0)
            session.Add(new FuzzMessage((uint)Request.SetLogBase, Bytes(new LogPayload(0x10000, 0)), DescriptorKind.Log));
        int rings = random.Next(1, 4);
        for (int i = 0; i < rings; i++)
            Ring(random, session, i, size, isPacked, (features & VirtioFeatures.LogAll) != 0);
        if ((features & VirtioFeatures.VhostUserProtocolFeatures) != 0)
        {
            for (int i = 0; i < rings; i++)
                session.Add(State(Request.SetVringEnable, i, 1));
        }
        Extra(random, session);
        for (int i = 0; i < rings; i++)
            session.Add(State(random.Next(4) == 0 ? Request.GetVringBaseSkipDrain : Request.GetVringBase, i, 0));
        if (random.Next(3) == 0)
        {
            Ring(random, session, 0, size, isPacked, logs: false);
            Extra(random, session);
        }
        return session;
    }

    /// <summary>Some message that may come at any time.</summary>
    public static FuzzMessage Any(Random random) => random.Next(26) switch
    {
        0 => MemoryTable(),
        1 => new FuzzMessage((uint)Request.RemMemReg, [.. new byte[8], .. Bytes(Region())]),
        2 => new FuzzMessage((uint)Request.AddMemReg, [.. new byte[8], .. Bytes(Region())], DescriptorKind.Memory),
        3 => new FuzzMessage((uint)Request.GetConfig, [.. Bytes(new ConfigHeader(0, 16, 0)), .. new byte[16]]),
        4 => new FuzzMessage((uint)Request.SetConfig, [.. Bytes(new ConfigHeader(2, 2, 1)), 1, 2]),
        5 => Message(Request.SetStatus, 7),
        6 => Message(Request.GetStatus),
        7 => Message(Request.ResetDevice),
        8 => Message(Request.GetQueueNum),
        9 => Message(Request.GetMaxMemSlots),
        10 => new FuzzMessage((uint)Request.SetBackendReqFd, [], DescriptorKind.Socket),
        11 => new FuzzMessage((uint)Request.GetInflightFd, Bytes(new InflightPayload(0, 0, 2, 16))),
        12 => new FuzzMessage((uint)Request.SetInflightFd, Bytes(new InflightPayload(0x4000, 0, 3, 16)), DescriptorKind.Inflight),
        13 => new FuzzMessage((uint)Request.SetLogFd, [], DescriptorKind.Event),
        14 => Message(Request.NetSetMtu, 1400),
        15 => Message(Request.SendRarp, 0x10203),
        16 => new FuzzMessage((uint)Request.SetDeviceStateFd, Bytes(new DeviceStatePayload(0, 0)), DescriptorKind.Pipe),
        17 => Message(Request.CheckDeviceState),
        18 => Message(Request.GetShmemConfig),
        19 => State(Request.VringKick, random.Next(3), 0),
        20 => State(Request.SetVringEnable, random.Next(3), (uint)random.Next(2)),
        21 => new FuzzMessage((uint)Request.SetVringCall, Bytes((ulong)random.Next(3)), DescriptorKind.Event),
        22 => new FuzzMessage((uint)Request.SetVringKick, Bytes((ulong)random.Next(3)), DescriptorKind.Event),
        23 => Message(Request.SetVringKick, VringDescriptor.NoFd | (uint)random.Next(3)),
        24 => new FuzzMessage((uint)Request.SetLogBase, Bytes(new LogPayload(0x10000, 0)), DescriptorKind.Log),
        _ => Message(Request.ResetOwner),
    };

    private static void Extra(Random random, List<FuzzMessage> session)
    {
        for (int i = random.Next(6); i > 0; i--)
            session.Add(Any(random));
    }

    private static void Ring(Random random, List<FuzzMessage> session, int index, uint size, bool isPacked, bool logs)
    {
        ulong area = User + (ulong)index * DriverQueue.AreaSize;
        session.Add(State(Request.SetVringNum, index, size));
        session.Add(State(Request.SetVringBase, index, isPacked ? PackedDriverQueue.Start : 0));
        session.Add(new FuzzMessage(
            (uint)Request.SetVringAddr, Bytes(new VringAddress((uint)index, logs ? 1U : 0, area, area + 0x3000, area + 0x2000, Guest + 0x3000))));
        session.Add(new FuzzMessage((uint)Request.SetVringErr, Bytes((ulong)index), DescriptorKind.Event));
        session.Add(new FuzzMessage((uint)Request.SetVringCall, Bytes((ulong)index), DescriptorKind.Event));
        session.Add(random.Next(5) == 0
            ? Message(Request.SetVringKick, VringDescriptor.NoFd | (uint)index)
            : new FuzzMessage((uint)Request.SetVringKick, Bytes((ulong)index), DescriptorKind.Event));
    }

    private static MemoryRegionPayload Region() => new(Guest, DescriptorPool.MemorySize, User, 0);

    private static FuzzMessage MemoryTable() =>
        new((uint)Request.SetMemTable, [.. Bytes(new MemoryTableHeader(1, 0)), .. Bytes(Region())], DescriptorKind.Memory);

    private static FuzzMessage Message(Request request) => new((uint)request, []);

    private static FuzzMessage Message(Request request, ulong value) => new((uint)request, Bytes(value));

    private static FuzzMessage State(Request request, int index, uint value) => new((uint)request, Bytes(new VringState((uint)index, value)));

    private static byte[] Bytes<T>(T value)
        where T : unmanaged => FrontEndDriver.Bytes(in value);
}
