using Vmm.Vhost.Memory;

namespace Vmm.Vhost;

/// <summary>A data plane: it works the rings of a device without the VMM, woken by the rings' kick eventfds and answering through
/// their call eventfds. The kernel is one (<c>Vmm.Vhost.Kernel</c>), a process behind a Unix socket another.</summary>
/// <remarks>The order is: <see cref="SetFeatures"/>, <see cref="SetMemory"/>, <see cref="Start"/>, <see cref="Stop"/> for each ring; and
/// from the beginning again when the driver has reset its device. Not thread-safe: a device calls it under its own lock. After its disposal every
/// method throws <see cref="ObjectDisposedException"/>.</remarks>
public interface IVhostBackend : IDisposable
{
    /// <summary>What it is called in messages, such as "/dev/vhost-net".</summary>
    string Name { get; }

    /// <summary>The virtio feature bits that the data plane offers: those a driver may accept, without vhost's own.</summary>
    ulong Features { get; }

    /// <summary>How many rings it works at most.</summary>
    int RingCount { get; }

    /// <summary>Says what the driver accepted: a subset of <see cref="Features"/>. No ring runs.</summary>
    /// <exception cref="VhostException">The back-end refused.</exception>
    void SetFeatures(ulong features);

    /// <summary>Shows it all of <paramref name="memory"/>, which must outlive the back-end's use of it. No ring runs.</summary>
    /// <exception cref="VhostException">The back-end refused, or <see cref="MayWrite"/> is true of this memory.</exception>
    void SetMemory(GuestMemory memory);

    /// <summary>Starts <paramref name="rings"/>: configures every one of them, then lets them run. A ring that runs already is left alone.</summary>
    /// <exception cref="ArgumentOutOfRangeException">A ring's number is not 0 to <see cref="RingCount"/> - 1, or the ring is larger than the
    /// back-end was told to expect; nothing was started.</exception>
    /// <exception cref="VhostException">The back-end refused a step, or it has no features or no memory yet; none of <paramref name="rings"/> runs.</exception>
    void Start(ReadOnlySpan<VringConfig> rings);

    /// <summary>Stops ring <paramref name="index"/>; when this returns, the back-end touches neither the ring nor the buffers in it, unless
    /// <see cref="MayWrite"/> says so. Stopping a stopped ring does nothing. A back-end that fails or is gone is no error here: a warning says
    /// what cannot be stopped.</summary>
    /// <param name="index">The ring's number, 0 to <see cref="RingCount"/> - 1.</param>
    /// <returns>Where to begin again (<see cref="VringConfig.Base"/>); the last known if the ring was stopped.</returns>
    /// <exception cref="ArgumentOutOfRangeException"><paramref name="index"/> is none of a ring.</exception>
    uint Stop(int index);

    /// <summary>Stops every ring as <see cref="Stop"/> does, all at once where the back-end can.</summary>
    void StopAll();

    /// <summary>Whether somebody may still write to <paramref name="memory"/>, although all rings are stopped: a back-end that did not finish
    /// what it had taken, and cannot be made to. Nobody knows when that ends, so this memory must not be given to another guest, nor to another
    /// driver. Asked of the memory that was set last.</summary>
    bool MayWrite(GuestMemory memory);
}
