using Vmm.Devices.Spawning;
using Vmm.Vhost.User;

namespace Vmm.Devices.Virtio.VhostUser;

/// <summary>The process that works a device's rings: how it is reached, and what is asked of it.</summary>
public sealed record VhostUserPeer
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(5), s_startPatience = TimeSpan.FromSeconds(30);

    private readonly TimeSpan? _timeout;

    /// <summary>Its socket; null where the device starts it.</summary>
    public VhostUserEndpoint? Endpoint { get; init; }

    /// <summary>The program that is started to be it; null where it is there already.</summary>
    public DaemonProgram? Program { get; init; }

    /// <summary>What starts it, or connects to it; null for this process.</summary>
    public ISpawner? Spawner { get; init; }

    /// <summary>Whether its death is survived: the device waits until it is back, and goes on.</summary>
    public bool Reconnect { get; init; } = true;

    /// <summary>How long it may take until it is there, before the guest boots: 5 s by default, and 30 s where the device starts it, which takes long on a
    /// busy host. The end of its process ends the wait.</summary>
    public TimeSpan Timeout
    {
        get => _timeout ?? (Endpoint is null ? s_startPatience : s_patience);
        init => _timeout = value;
    }

    /// <summary>Descriptors in each queue at most, a power of two up to 32768; null for what suits the device.</summary>
    public int? QueueSize { get; init; }

    /// <summary>The device's configuration space in place of what the back-end has; null to ask it.</summary>
    public ReadOnlyMemory<byte>? Config { get; init; }

    /// <summary>The number of its socket, where this process has inherited that; none otherwise.</summary>
    internal IReadOnlyList<int> InheritedDescriptors => Endpoint is { Role: VhostUserSocketRole.Inherited } inherited ? [inherited.Number] : [];

    /// <summary>The same, by a spawner unless its socket is inherited.</summary>
    internal VhostUserPeer With(Func<ISpawner> spawner) =>
        Endpoint is { Role: VhostUserSocketRole.Inherited } ? this : this with { Spawner = spawner() };

    /// <summary>How the user wrote where it is.</summary>
    internal string Place => Program is { } program ? program.Label
        : Endpoint is { Role: VhostUserSocketRole.Inherited } inherited ? $"fd={inherited.Number}" : $"socket={Endpoint}";
}
