using Vmm.Vhost.User.Protocol;

namespace Vmm.Vhost.User.Backend;

/// <summary>A virtio device that is served as a vhost-user back-end (a slave, in old words): what its author implements. One object is
/// one device, for any number of front-ends one after another.</summary>
/// <remarks>Everything here is called on the thread that serves the connection, <see cref="IRingHandler"/> on the rings' own threads.
/// A method that throws ends the connection, not the process.</remarks>
public abstract class VhostUserDevice
{
    /// <summary>The most bytes of a state (<see cref="SaveState"/>): what a front-end sends is kept in memory.</summary>
    public const int MaxStateSize = 256 << 20;

    private readonly Lock _endLock = new();
    private Action? _ended;

    /// <summary>What it is called in log lines. It is asked for once by each <see cref="VhostUserServer"/>, when that is made.</summary>
    public abstract string Name { get; }

    /// <summary>The feature bits of its device type. The library adds those of rings and of vhost-user.</summary>
    public abstract ulong Features { get; }

    /// <summary>How many rings (virtqueues) the back-end works, 1 to 256. Queues that the front-end works itself are not among them.</summary>
    public abstract int RingCount { get; }

    /// <summary>How many rings one queue of <see cref="VhostUserRequest.GetQueueNum"/> is; <see cref="RingCount"/> is a multiple of it. 1, or 2 for
    /// network devices: QEMU and DPDK mean pairs of a receive and a transmit ring there (vhost-user.rst, "Multiple queue support", does
    /// not say).</summary>
    public virtual int RingsPerQueue => 1;

    /// <summary>Starts a ring that was set up and enabled.</summary>
    /// <param name="ring">The ring; the handler uses it until it is disposed.</param>
    /// <returns>What works the ring, on the ring's thread.</returns>
    public abstract IRingHandler StartRing(BackendRing ring);

    /// <summary>Protocol features beyond the library's own, for which the device has the methods: <see cref="VhostUserProtocolFeatures.Rarp"/>,
    /// <see cref="VhostUserProtocolFeatures.Mtu"/>, <see cref="VhostUserProtocolFeatures.DeviceState"/>, <see cref="VhostUserProtocolFeatures.Shmem"/>, and
    /// <see cref="VhostUserProtocolFeatures.InbandNotifications"/>, for which the library has them. Others are not offered.</summary>
    public virtual VhostUserProtocolFeatures ProtocolFeatures => VhostUserProtocolFeatures.None;

    /// <summary>Whether requests are always completed in the order in which they are taken; then IN_ORDER is offered.</summary>
    public virtual bool IsInOrder => false;

    /// <summary>Whether front-ends may keep track of what is in flight, so that it outlives this process. Requests that were taken and not
    /// completed are then taken again by the next process: doing one twice must do no harm.</summary>
    public virtual bool TracksInflight => true;

    /// <summary>Bytes that the front-end is to keep for the device, beside the in-flight log, so that they outlive this process; 0 for none.</summary>
    public virtual int KeptMemorySize => 0;

    /// <summary>The front-end has given the <see cref="KeptMemorySize"/> bytes that it keeps, new ones or those that a process before this one had; or takes them away. No ring
    /// runs.</summary>
    /// <param name="memory">The bytes; null when they are gone.</param>
    public virtual void MemoryKept(KeptMemory? memory)
    {
    }

    /// <summary>The most descriptors that a ring may have, at most 32768.</summary>
    public virtual int MaxQueueSize => 32768;

    /// <summary>Bytes of configuration space, at most 4084; 0 if there is none.</summary>
    public virtual int ConfigSize => 0;

    /// <summary>Sizes of the shared-memory regions by id, at most 256; with <see cref="VhostUserProtocolFeatures.Shmem"/>.</summary>
    public virtual IReadOnlyList<ulong> SharedMemorySizes => [];

    /// <summary>Its name as it was when a server was made for it.</summary>
    internal string ServedAs { get; set; } = "device";

    /// <summary>The channel to the front-end; null as long as there is none.</summary>
    public BackendRequestSender? FrontEnd { get; internal set; }

    /// <summary>Why the device can do nothing any more; null as long as it can.</summary>
    internal string? EndReason { get; private set; }

    /// <summary>A server begins to serve the device: what the device does beside its rings can begin, on threads of its own.</summary>
    public virtual void ServingBegins()
    {
    }

    /// <summary>Fills in the configuration space.</summary>
    /// <param name="config"><see cref="ConfigSize"/> bytes, zero.</param>
    public virtual void ReadConfig(Span<byte> config)
    {
    }

    /// <summary>The driver, or a migration, writes the configuration space.</summary>
    /// <param name="offset">Where; all of <paramref name="data"/> lies in the space.</param>
    /// <param name="data">What.</param>
    /// <returns>Whether that may be written.</returns>
    public virtual bool WriteConfig(int offset, ReadOnlySpan<byte> data) => false;

    /// <summary>Features were agreed on: by the driver, or by its front-end that has come back. No ring runs.</summary>
    /// <param name="features">All of them, also those of rings.</param>
    public virtual void FeaturesAccepted(ulong features)
    {
    }

    /// <summary>The driver resets the device: what it has chosen is forgotten. No ring runs.</summary>
    public virtual void Reset()
    {
    }

    /// <summary>The connection has ended. No ring runs. The front-end may come back without its driver noticing, and does not repeat what the
    /// driver has chosen: that stays until <see cref="Reset"/>, or until <see cref="FeaturesAccepted"/> says that the driver has begun anew.</summary>
    public virtual void FrontEndGone()
    {
    }

    /// <summary>The guest has moved to this host: its network is to be told by a RARP (vhost-user.rst, "VHOST_USER_SEND_RARP").</summary>
    /// <param name="mac">The guest's MAC address, 6 bytes.</param>
    /// <returns>Whether that was done.</returns>
    public virtual bool SendRarp(ReadOnlySpan<byte> mac) => false;

    /// <summary>The MTU that the front-end has told the driver (vhost-user.rst, "VHOST_USER_NET_SET_MTU").</summary>
    /// <param name="mtu">The largest packet without Ethernet's header, in bytes; whatever the front-end sends, 0 to 65535.</param>
    /// <returns>Whether it can be used.</returns>
    public virtual bool SetMtu(int mtu) => false;

    /// <summary>The device's inner state, for migration, at most <see cref="MaxStateSize"/> bytes. No ring runs.</summary>
    /// <returns>Null if it cannot be saved.</returns>
    public virtual byte[]? SaveState() => null;

    /// <summary>Takes over what <see cref="SaveState"/> gave on another host. No ring runs. The bytes may be anybody's.</summary>
    /// <returns>Whether they are such a state.</returns>
    public virtual bool LoadState(ReadOnlySpan<byte> state) => false;

    /// <summary>The device has lost for good what it is made of, such as a network interface that was deleted: <see cref="VhostUserServer.Run"/> closes
    /// the connection, which a front-end shows its guest as a link that is down or the like, and throws. From any thread, and more
    /// than once: the first reason counts.</summary>
    /// <param name="reason">What happened, for the error, behind the device's name.</param>
    protected void End(string reason)
    {
        lock (_endLock)
        {
            if (EndReason is not null)
                return;
            EndReason = reason;
            _ended?.Invoke();
        }
    }

    /// <summary>Calls <paramref name="ended"/> once the device has ended, at once if it has already; null forgets it.</summary>
    internal void WhenEnded(Action? ended)
    {
        lock (_endLock)
        {
            _ended = ended;
            if (EndReason is not null)
                ended?.Invoke();
        }
    }
}
