using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Vhost.User.Frontend;

/// <summary>What a <see cref="VhostUserFrontend"/> is to be.</summary>
public sealed record VhostUserFrontendOptions
{
    /// <summary>The protocol features that a front-end has a use for. Not among them: kicks by message, as eventfds do not need this
    /// process; shared-memory regions, which need an owner that shows them to its guest; guest-physical ring addresses; byte orders; what
    /// belongs to migration, crypto and Xen.</summary>
    public const VhostUserProtocolFeatures DefaultFeatures =
        VhostUserProtocolFeatures.Mq | VhostUserProtocolFeatures.ReplyAck | VhostUserProtocolFeatures.Config
        | VhostUserProtocolFeatures.BackendReq | VhostUserProtocolFeatures.BackendSendFd | VhostUserProtocolFeatures.InflightShmFd
        | VhostUserProtocolFeatures.ResetDevice | VhostUserProtocolFeatures.ConfigureMemSlots | VhostUserProtocolFeatures.Status
        | VhostUserProtocolFeatures.Mtu | VhostUserProtocolFeatures.Rarp | VhostUserProtocolFeatures.DeviceState;

    /// <summary>Where the back-end is.</summary>
    public required VhostUserEndpoint Endpoint { get; init => field = NotNull(value, nameof(Endpoint)); }

    /// <summary>What the device is called in messages, such as "--fs tag=work".</summary>
    public required string Device { get; init => field = NotNull(value, nameof(Device)); }

    /// <summary>How many rings the device has, 1 to 256: knowledge of its type, which not every back-end can be asked for.</summary>
    /// <exception cref="ArgumentOutOfRangeException">It is not.</exception>
    public required int RingCount { get; init => field = Within(value, 1, (int)VringDescriptor.IndexMask + 1, nameof(RingCount)); }

    /// <summary>How many rings a queue of <see cref="VhostUserRequest.GetQueueNum"/> is: 1, or 2 with network devices, whose back-ends count
    /// pairs. With 2, a back-end without <see cref="VhostUserProtocolFeatures.Mq"/> has one pair.</summary>
    /// <exception cref="ArgumentOutOfRangeException">It is neither.</exception>
    public int RingsPerQueue { get; init => field = Within(value, 1, 2, nameof(RingsPerQueue)); } = 1;

    /// <summary>The most descriptors that a ring will have, a power of two up to 32768.</summary>
    /// <exception cref="ArgumentOutOfRangeException">It is not.</exception>
    public required int QueueSize
    {
        get;
        init => field = int.IsPow2(value) && value <= Virtqueue.RingLayout.MaxSize
            ? value
            : throw new ArgumentOutOfRangeException(
                nameof(QueueSize), value, $"{nameof(QueueSize)} must be a power of two, 1 to {Virtqueue.RingLayout.MaxSize}");
    }

    /// <summary>Bytes of configuration space that are wanted from the back-end, 0 (none) to 256. One that has fewer refuses.</summary>
    /// <exception cref="ArgumentOutOfRangeException">It is not 0 to 256.</exception>
    public int ConfigSize { get; init => field = Within(value, 0, ConfigHeader.MaxConfigSize, nameof(ConfigSize)); }

    /// <summary>Whether there is no device without a configuration space from the back-end. If not,
    /// <see cref="VhostUserFrontend.HasConfig"/> says whether there is one.</summary>
    public bool ConfigRequired { get; init; }

    /// <summary>The virtio features without which a back-end that comes back is not taken, whatever the driver uses. The first one is the owner's to
    /// check.</summary>
    public ulong RequiredFeatures { get; init; }

    /// <summary>Bytes of the configuration space that may differ in a back-end that comes back while a driver uses the device: those that
    /// the driver reads again when it is told of a change, and those that the owner replaces before the driver sees them.</summary>
    public IReadOnlyList<Range> ChangeableConfig { get; init; } = [];

    /// <summary>Whether a back-end that is gone is waited for and connected to again.</summary>
    public bool Reconnect { get; init; } = true;

    /// <summary>How long <see cref="VhostUserFrontend.Open"/> may take, until there is a connection and all is agreed on;
    /// <see cref="Timeout.InfiniteTimeSpan"/> for as long as it takes.</summary>
    /// <exception cref="ArgumentOutOfRangeException">It is less than 0, or more than 24 days.</exception>
    public TimeSpan ConnectTimeout
    {
        get;
        init => field = value == TimeSpan.Zero ? value : TimeLimit.Checked(value, nameof(ConnectTimeout), mayBeInfinite: true);
    } = TimeSpan.FromSeconds(5);

    /// <summary>How long the back-end may take to answer a question, such as for its configuration. Within <see cref="VhostUserFrontend.Open"/> the
    /// <see cref="ConnectTimeout"/> counts instead, unless it is infinite, and during a start the <see cref="StartTimeout"/>.</summary>
    /// <exception cref="ArgumentOutOfRangeException">It is 0 or less, or more than 24 days.</exception>
    public TimeSpan ReplyTimeout { get; init => field = TimeLimit.Checked(value, nameof(ReplyTimeout)); } = TimeSpan.FromSeconds(5);

    /// <summary>How long each step of a start may take in all: the features, the memory, the rings; and with a back-end that has come back the agreement on
    /// all that comes before them, and to tell it all of them. It is long, as some back-ends register all memory with their hardware, or make it
    /// resident, and one that is just being started answers late on a busy host.</summary>
    /// <exception cref="ArgumentOutOfRangeException">It is 0 or less, or more than 24 days.</exception>
    public TimeSpan StartTimeout { get; init => field = TimeLimit.Checked(value, nameof(StartTimeout)); } = VhostUserSession.MemoryTimeout;

    /// <summary>How long a stop of all rings, a <see cref="VhostUserFrontend.Reset"/> or the end may take in all, until the back-end has done what it has
    /// taken from the rings. One that takes longer is disconnected; see <see cref="VhostUserFrontend.MayWrite"/>.</summary>
    /// <exception cref="ArgumentOutOfRangeException">It is 0 or less, or more than 24 days.</exception>
    public TimeSpan StopTimeout { get; init => field = TimeLimit.Checked(value, nameof(StopTimeout)); } = TimeSpan.FromSeconds(5);

    /// <summary>Whether every request that a driver makes is completed by itself, as a disk's are and the buffers for a network's packets are not.
    /// Then a stop lets the back-end complete them before it is told to stop, for most of <see cref="StopTimeout"/>. If a back-end did not
    /// stop, the end of its process does not prove that its direct reads are over.</summary>
    public bool CompletesRequests { get; init; }

    /// <summary>Gives the process id of the back-end where the owner knows it better than the socket, as of a process that it has started itself
    /// with a listening socket; null to ask the socket.</summary>
    public Func<int>? PeerProcessId { get; init; }

    /// <summary>Readable once the process that is to be the back-end has ended, where the owner has started it: from then on
    /// <see cref="VhostUserFrontend.Open"/> does not wait for a connection. It stays the owner's. Null where nobody can tell.</summary>
    public FileDescriptor? PeerEnded { get; init; }

    /// <summary>The protocol features to be agreed on, if the back-end offers them. Some never are. <see cref="VhostUserProtocolFeatures.GpaAddresses"/> and
    /// <see cref="VhostUserProtocolFeatures.XenMmap"/>: the front-end gives addresses and regions of another kind, and some back-ends mean something else by the first.
    /// <see cref="VhostUserProtocolFeatures.GetVringBaseInflight"/> and <see cref="VhostUserProtocolFeatures.GetVringBaseSkipDrain"/>: a ring that has stopped has given
    /// all requests back.</summary>
    public VhostUserProtocolFeatures Wanted { get; init; } = DefaultFeatures;

    /// <summary>The lock under which the front-end does what it is called for, and raises events. It takes the lock by itself. An owner with state of its
    /// own gives the lock of that, so that no event comes between its calls. By default a lock of the front-end's own.</summary>
    public Lock Sync { get; init => field = NotNull(value, nameof(Sync)); } = new();

    /// <summary>Called without <see cref="Sync"/> before each attempt to connect again, up to 40 times a second: to start the
    /// back-end if it does not run.</summary>
    /// <remarks>If it throws an <see cref="IOException"/>, that is logged as a warning, and it is called again before the next attempt. If it throws an
    /// <see cref="IOException"/> whose inner exception is an <see cref="ErrnoException"/> with EPIPE, the process that starts the back-end is gone: the
    /// device is lost (<see cref="IVhostUserFrontendEvents.Lost"/>). Any other exception ends the device, too.</remarks>
    public Action? Respawn { get; init; }

    /// <summary>Connects to a socket: for a process that may not do so by itself.</summary>
    public SocketConnector Connect { get; init => field = NotNull(value, nameof(Connect)); } = UnixSocket.TryConnect;

    private static T NotNull<T>(T value, string name)
        where T : class => value ?? throw new ArgumentNullException(name);

    private static int Within(int value, int least, int most, string name) =>
        value >= least && value <= most
            ? value
            : throw new ArgumentOutOfRangeException(name, value, $"{name} must be {least} to {most}");
}

/// <summary>Connects to the socket at <paramref name="path"/>.</summary>
/// <returns>0, or the error number.</returns>
/// <exception cref="ErrnoException">It could not be tried. With EPIPE, the process that connects is gone: a device whose back-end is away is lost
/// (<see cref="IVhostUserFrontendEvents.Lost"/>).</exception>
public delegate int SocketConnector(string path, out UnixSocket? socket);
