using Vmm.Vhost.Native;
using Vmm.Vhost.Native.Confinement;
using Vmm.Vhost.User.Backend;

namespace Vmm.Devices.Backends.Rng;

/// <summary>An entropy device (VIRTIO 1.2 §5.4): fills the driver's buffers from a source of the host's.</summary>
public sealed class RngBackend : VhostUserDevice, IDisposable
{
    /// <summary>Where random bytes come from if nothing else is said.</summary>
    public const string DefaultSource = "/dev/urandom";

    /// <summary>The system calls that it makes while it is served, besides those of every back-end.</summary>
    public static readonly IReadOnlyList<SystemCallRule> SystemCalls = [SystemCallNumber.Lseek];

    private readonly RngSource _source;
    private readonly TokenBucket? _limit;

    /// <summary>Opens the source.</summary>
    /// <param name="source">A device or file; a regular file that is read to its end gives no more. How far it was read outlives the process with what the front-end
    /// keeps (<see cref="VhostUserDevice.KeptMemorySize"/>).</param>
    /// <param name="bytesPerSecond">The most bytes a second; null for no limit.</param>
    /// <exception cref="ErrnoException">It cannot be opened.</exception>
    public RngBackend(string source, ulong? bytesPerSecond)
    {
        _source = new RngSource(source);
        _limit = bytesPerSecond is ulong limit ? new TokenBucket(limit) : null;
    }

    /// <inheritdoc/>
    public override string Name => "rng";

    /// <inheritdoc/>
    public override ulong Features => 0;

    /// <inheritdoc/>
    public override int RingCount => 1;

    /// <inheritdoc/>
    public override bool IsInOrder => true;

    /// <inheritdoc/>
    public override int KeptMemorySize => _source.IsFile ? RngSource.KeptSize : 0;

    /// <inheritdoc/>
    public override void MemoryKept(KeptMemory? memory) => _source.Keep(memory);

    /// <inheritdoc/>
    public override IRingHandler StartRing(BackendRing ring) => new RngRing(_source, _limit);

    /// <inheritdoc/>
    public void Dispose() => _source.Dispose();
}
