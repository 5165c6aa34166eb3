namespace Vmm.Vhost.User.Backend;

/// <summary>How a device is served.</summary>
public sealed record VhostUserServerOptions
{
    /// <summary>One thread for all rings instead of one for each. Not for a device whose <see cref="IRingHandler.Drain"/> of one ring waits for
    /// requests of another ring: the thread would wait for itself. A block device with direct I/O and blocks smaller than its file's transfers is one.</summary>
    public bool SharesThread { get; init; }

    /// <summary>As a client: how long to wait before connecting again, when nobody listens or the front-end has gone; more than 0.</summary>
    /// <exception cref="ArgumentOutOfRangeException">It is 0 or less, or more than 24 days.</exception>
    public TimeSpan ReconnectInterval { get; init => field = TimeLimit.Checked(value, nameof(ReconnectInterval)); } = TimeSpan.FromSeconds(1);

    /// <summary>Ends when the first front-end leaves, instead of waiting for the next.</summary>
    public bool ServesOnce { get; init; }

    /// <summary>How long a message may take from its first byte to its last, and a peer to make room for a reply; more than 0.</summary>
    /// <exception cref="ArgumentOutOfRangeException">It is 0 or less, or more than 24 days.</exception>
    public TimeSpan Deadline { get; init => field = TimeLimit.Checked(value, nameof(Deadline)); } = TimeSpan.FromSeconds(10);

    /// <summary>The time between two looks at a ring without kicks (VHOST_USER_VRING_NOFD_MASK); more than 0.</summary>
    /// <exception cref="ArgumentOutOfRangeException">It is 0 or less, or more than 24 days.</exception>
    public TimeSpan PollInterval { get; init => field = TimeLimit.Checked(value, nameof(PollInterval)); } = TimeSpan.FromMilliseconds(1);
}
