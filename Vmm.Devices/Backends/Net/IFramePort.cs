using Vmm.Vhost.Native;

namespace Vmm.Devices.Backends.Net;

/// <summary>Where the frames of a network device come from and go to. Each queue pair has a way of its own, so that no two threads meet.</summary>
internal interface IFramePort : IDisposable
{
    /// <summary>What every frame here has before it: struct virtio_net_hdr_v1 (VIRTIO 1.2 §5.1.6).</summary>
    const int HeaderSize = 12;

    /// <summary>The largest frame, without the header: what an IP packet of 64 KiB can be with its Ethernet header and VLAN tag.</summary>
    const int MaxFrame = 65535 + 18;

    /// <summary>The offloads that it can take over or hand on.</summary>
    ulong Features { get; }

    /// <summary>Why the wire is gone for good, as the end of a sentence ("was deleted"); null while it is there.</summary>
    string? Fate { get; }

    /// <summary>Whether it may ever have a <see cref="Fate"/>.</summary>
    bool CanBeGone { get; }

    /// <summary>The largest packet that comes from here, without Ethernet's header; null if there is no such limit.</summary>
    int? Mtu { get; }

    /// <summary>What <paramref name="pair"/> waits for to receive.</summary>
    FileDescriptor Receiver(int pair);

    /// <summary>The driver has accepted <paramref name="features"/>.</summary>
    void Accept(ulong features);

    /// <summary>Has frames come by <paramref name="pair"/> too, or no longer.</summary>
    void Use(int pair, bool use);

    /// <summary>Sends a frame; from any thread.</summary>
    /// <param name="pair">By which pair.</param>
    /// <param name="vectors">The header in one, then the frame in as many as it pleases; at most <see cref="VectoredIo.MaxVectors"/>.</param>
    /// <returns>0 or more; less: the negated error number.</returns>
    int TrySend(int pair, ReadOnlySpan<IoVector> vectors);

    /// <summary>Receives a frame.</summary>
    /// <param name="pair">By which pair.</param>
    /// <param name="buffer">Room for the header and the largest frame.</param>
    /// <returns>Bytes with the header; less than 0: the negated error number.</returns>
    int TryReceive(int pair, Span<byte> buffer);
}
