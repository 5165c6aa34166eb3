using Vmm.Devices.Net;
using Vmm.Vhost;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Backends.Net;

/// <summary>A tap interface, one of its queues for each pair. Headers pass through, and with them all offloads.</summary>
internal sealed class TapPort : IFramePort
{
    private const ulong Offloads = NetFeatures.Csum | NetFeatures.HostTso4 | NetFeatures.HostTso6 | NetFeatures.HostEcn
        | NetFeatures.GuestCsum | NetFeatures.GuestTso4 | NetFeatures.GuestTso6 | NetFeatures.GuestEcn;

    private readonly Tap _tap;

    /// <summary>Opens the tap.</summary>
    /// <param name="name">The interface; made if it is not there.</param>
    /// <param name="pairs">How many queues.</param>
    /// <param name="mtu">Its MTU from now on; null leaves it.</param>
    /// <exception cref="VhostException">It cannot be had; the message says what to do.</exception>
    public TapPort(string name, int pairs, int? mtu)
    {
        _tap = Tap.Open(name, pairs, "--tap", key: "");
        try
        {
            foreach (FileDescriptor queue in _tap.Queues)
                queue.SetNonBlocking();
            if (mtu is int value)
                _tap.SetMtu(value);
            bool hasUfo = _tap.TrySetOffloads(NetFeatures.GuestOffloads);
            Features = Offloads | (hasUfo ? NetFeatures.GuestUfo | NetFeatures.HostUfo : 0);
            Mtu = _tap.Mtu;
            Accept(0);
            for (int pair = 1; pair < pairs; pair++)
                Use(pair, use: false);
            _tap.CloseControl();
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public ulong Features { get; }

    /// <inheritdoc/>
    public string? Fate => _tap.IsGone ? "was deleted" : null;

    /// <inheritdoc/>
    public bool CanBeGone => true;

    /// <summary>As it was when the tap was opened: to ask again takes a socket that reaches other interfaces too.</summary>
    public int? Mtu { get; }

    /// <inheritdoc/>
    public FileDescriptor Receiver(int pair) => _tap.Queues[pair];

    /// <inheritdoc/>
    public void Accept(ulong features)
    {
        // One that is gone refuses everything, and is given up anyhow.
        if (!_tap.TrySetOffloads(features & NetFeatures.GuestOffloads) && !_tap.IsGone)
            throw new VhostException($"tap {_tap.Name} refuses the offloads that the driver has accepted");
    }

    /// <inheritdoc/>
    public void Use(int pair, bool use)
    {
        // The first is always in use, and a tap of one queue knows of no others.
        if (pair > 0)
            _tap.TryUseQueue(pair, use);
    }

    /// <inheritdoc/>
    public int TrySend(int pair, ReadOnlySpan<IoVector> vectors) => VectoredIo.TryWrite(_tap.Queues[pair], vectors);

    /// <inheritdoc/>
    public int TryReceive(int pair, Span<byte> buffer) => _tap.Queues[pair].TryRead(buffer);

    /// <inheritdoc/>
    public override string ToString() => $"the tap {_tap.Name}";

    /// <inheritdoc/>
    public void Dispose()
    {
        _tap.Dispose();
    }
}
