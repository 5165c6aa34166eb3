using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Vhost.User.Frontend;

/// <summary>A back-end that has been agreed with on all that comes before features and rings: one connection's share of a
/// <see cref="VhostUserFrontend"/>.</summary>
internal sealed class FrontendPeer : IDisposable
{
    // Addresses and memory regions of another kind, and back-ends that stop with requests in flight.
    private const VhostUserProtocolFeatures NotKnown = VhostUserProtocolFeatures.GpaAddresses | VhostUserProtocolFeatures.XenMmap
        | VhostUserProtocolFeatures.GetVringBaseInflight | VhostUserProtocolFeatures.GetVringBaseSkipDrain;

    private static readonly BoundedLog s_log = new("Vmm.Vhost.User");

    private readonly EventLoop _requests;
    private ProcessDescriptor? _process;
    private bool _isServed;

    private FrontendPeer(VhostUserSession session, EventLoop requests)
    {
        Session = session;
        _requests = requests;
    }

    public VhostUserSession Session { get; }

    /// <summary>The virtio features it offers, as it says them.</summary>
    public ulong OfferedFeatures { get; private set; }

    /// <summary>Its configuration space; null if it has none that is wanted.</summary>
    public byte[]? Config { get; private set; }

    /// <summary>How many rings it has at most, if it can say.</summary>
    public int? MaxRingCount { get; private set; }

    /// <summary>The sizes of its shared-memory regions by their ids; null if it has none that are wanted.</summary>
    public ulong[]? SharedMemorySizes { get; private set; }

    /// <summary>Whether it was told of the in-flight log that is in use.</summary>
    public bool HasInflight { get; set; }

    /// <summary>Whether it was told what the device's type has to say before the first ring, since features were agreed on.</summary>
    public bool IsPrepared { get; set; }

    /// <summary>Whether a ring of it may run: it was told so, and did not refuse.</summary>
    public bool MayRun { get; set; }

    private BackendRequestReceiver? Channel { get; set; }

    /// <summary>Negotiates.</summary>
    /// <param name="session">A new connection, closed if this fails.</param>
    /// <param name="options">What is wanted.</param>
    /// <param name="handler">What does as the back-end asks.</param>
    /// <param name="requests">Where its requests are waited for.</param>
    /// <param name="failed">Called, with the reason, when <paramref name="handler"/> has thrown and hears no more of the back-end's requests.</param>
    /// <exception cref="VhostException">The connection broke, or the back-end is not one for this device.</exception>
    public static FrontendPeer Negotiate(
        VhostUserSession session, VhostUserFrontendOptions options, IVhostUserBackendRequests handler, EventLoop requests, Action<string> failed)
    {
        var peer = new FrontendPeer(session, requests);
        try
        {
            // The kernel does not tell which process has the other end of an inherited socket now.
            if (options.PeerProcessId is not null || options.Endpoint.Role != VhostUserSocketRole.Inherited)
                peer._process = ProcessDescriptor.TryOpen(options.PeerProcessId?.Invoke() ?? session.Socket.PeerProcessId);
            peer.Negotiate(options, handler, failed);
            return peer;
        }
        catch (Exception e)
        {
            peer.Dispose();
            if (e is ErrnoException)
                throw new VhostException($"{session.Peer}: {e.Message}", e);
            throw;
        }
    }

    /// <summary>Reads the configuration space again.</summary>
    public void RefreshConfig()
    {
        byte[] config = new byte[Config!.Length];
        Session.GetConfig(config);
        Config = config;
    }

    /// <summary>The number of the back-end's process; null if it is not known.</summary>
    public int? ProcessId => _process?.Id;

    /// <summary>Gives away the back-end's process, which tells its end; null if it is not known.</summary>
    public ProcessDescriptor? TakeProcess()
    {
        ProcessDescriptor? process = _process;
        _process = null;
        return process;
    }

    /// <summary>Closes the connection, without waiting for a request of the back-end's that is being served.</summary>
    public void Dispose()
    {
        _process?.Dispose();
        if (Channel is not null)
        {
            _requests.Remove(Channel.Socket);
            Channel.Dispose();
        }
        Session.Dispose();
    }

    private void Negotiate(VhostUserFrontendOptions options, IVhostUserBackendRequests handler, Action<string> failed)
    {
        Session.SetOwner();
        OfferedFeatures = Session.GetFeatures();
        VhostUserProtocolFeatures offered = default;
        if (Session.HasProtocolFeatures)
        {
            offered = Session.GetProtocolFeatures();
            VhostUserProtocolFeatures wanted = options.Wanted & ~NotKnown;
            if (options.ConfigSize == 0)
                wanted &= ~VhostUserProtocolFeatures.Config;
            Session.SetProtocolFeatures(VhostUserSession.Usable(offered & wanted));
        }
        s_log.Debug(
            "{Peer}: offers features 0x{Features:x}, protocol features {Offered} (0x{Bits:x}); agreed on {Agreed}",
            Session.Peer, OfferedFeatures, offered, (ulong)offered, Session.ProtocolFeatures);
        CountRings(options);
        if (Has(VhostUserProtocolFeatures.ConfigureMemSlots))
            CheckMemorySlots();
        if (Has(VhostUserProtocolFeatures.Shmem))
            SharedMemorySizes = Session.GetSharedMemorySizes();
        if (Has(VhostUserProtocolFeatures.BackendReq))
            OpenChannel(handler, failed);
        if (options.ConfigSize > 0)
            ReadConfig(options);
    }

    private bool Has(VhostUserProtocolFeatures feature) => (Session.ProtocolFeatures & feature) != 0;

    private void CountRings(VhostUserFrontendOptions options)
    {
        bool canSay = Has(VhostUserProtocolFeatures.Mq);
        // Without MQ a network device has one pair (as QEMU has it). For other types the number is knowledge of the type.
        if (!canSay && options.RingsPerQueue == 1)
            return;
        ulong queues = canSay ? Session.GetQueueNum() : 1;
        int limit = (int)VringDescriptor.IndexMask + 1;
        MaxRingCount = (int)Math.Min(Math.Min(queues, (ulong)limit) * (ulong)options.RingsPerQueue, (ulong)limit);
        if (MaxRingCount >= options.RingCount)
            return;
        string has = options.RingsPerQueue == 1 ? $"{queues} queues" : $"{queues} {(queues == 1 ? "pair" : "pairs")} of queues";
        throw new VhostException(
            $"{Session.Peer}: has {has} ({MaxRingCount} rings), fewer than the {options.RingCount} rings of the device: "
            + "give the device fewer queues, or the back-end more");
    }

    private void CheckMemorySlots()
    {
        ulong slots = Session.GetMaxMemorySlots();
        // The limit holds for regions that come in one table, too.
        if (slots < Memory.GuestMemory.MaxRegions)
            s_log.Debug("{Peer}: takes only {Slots} memory regions", Session.Peer, slots);
    }

    private void OpenChannel(IVhostUserBackendRequests handler, Action<string> failed)
    {
        BackendRequestReceiver channel = Channel =
            BackendRequestReceiver.Create(Session.Peer, Session.ProtocolFeatures, handler, Session.Received, out FileDescriptor theirs);
        using (theirs)
        {
            // Served from before the back-end knows of it: it may use it before it answers.
            _requests.Add(channel.Socket, () => Serve(handler), failed: reason =>
            {
                channel.Dispose();   // the back-end sees that nobody answers
                failed(reason);
            });
            Session.SetBackendRequestSocket(theirs);
        }
    }

    // On the thread of the requests. Whatever the last connection's back-end has asked is done by now: that was served on this thread, too.
    private void Serve(IVhostUserBackendRequests handler)
    {
        if (!_isServed)
        {
            _isServed = true;
            handler.BackendIsNew();
        }
        try
        {
            Channel!.Serve();
        }
        catch (VhostUserException e)
        {
            // The other channel tells of a back-end that is gone.
            s_log.Debug("{Error}: its requests are not heard any more", e.Message);
            _requests.Remove(Channel!.Socket);
            Channel.Dispose();
        }
    }

    private void ReadConfig(VhostUserFrontendOptions options)
    {
        if (!Has(VhostUserProtocolFeatures.Config))
        {
            if (options.ConfigRequired)
                throw new VhostException($"{Session.Peer}: has no configuration space (the protocol feature CONFIG), which the device needs");
            return;
        }
        byte[] config = new byte[options.ConfigSize];
        try
        {
            Session.GetConfig(config);
            Config = config;
        }
        catch (VhostUserException e) when (!e.IsConnectionLost && !options.ConfigRequired)
        {
            s_log.Debug("{Error}: the device does without", e.Message);
        }
    }
}
