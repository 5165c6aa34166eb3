namespace Vmm.Vhost.User;

/// <summary>Where the other side is, and who connects to whom: either side may be the one that listens.</summary>
public sealed record VhostUserEndpoint
{
    private VhostUserEndpoint()
    {
    }

    /// <summary>Whether this side connects (<see cref="VhostUserSocketRole.Client"/>), listens, or has got a connected socket from its parent process.</summary>
    public VhostUserSocketRole Role { get; private init; }

    /// <summary>The socket's path; null with <see cref="VhostUserSocketRole.Inherited"/>.</summary>
    public string? Path { get; private init; }

    /// <summary>The inherited descriptor; -1 otherwise.</summary>
    public int Number { get; private init; } = -1;

    /// <summary>We connect to a socket on which the other side listens.</summary>
    public static VhostUserEndpoint ConnectTo(string path) => new() { Role = VhostUserSocketRole.Client, Path = NotNull(path) };

    /// <summary>We listen on a socket, and the other side connects.</summary>
    public static VhostUserEndpoint ListenOn(string path) => new() { Role = VhostUserSocketRole.Server, Path = NotNull(path) };

    /// <summary>The process was started with a socket: a connected one, or for a back-end one that listens.</summary>
    /// <exception cref="ArgumentOutOfRangeException"><paramref name="number"/> is negative.</exception>
    public static VhostUserEndpoint Inherit(int number)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(number);
        return new() { Role = VhostUserSocketRole.Inherited, Number = number };
    }

    private static string NotNull(string path)
    {
        ArgumentNullException.ThrowIfNull(path);
        return path;
    }

    /// <inheritdoc/>
    public override string ToString() => Path ?? $"fd {Number}";
}

/// <summary>Who connects to whom.</summary>
public enum VhostUserSocketRole
{
    /// <summary>We connect.</summary>
    Client,

    /// <summary>We listen.</summary>
    Server,

    /// <summary>We were given a socket.</summary>
    Inherited,
}
