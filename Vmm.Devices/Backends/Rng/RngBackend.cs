using Vmm.Vhost.Native;
using Vmm.Vhost.User.Backend;

namespace Vmm.Devices.Backends.Rng;

/// <summary>An entropy device (VIRTIO 1.2 §5.4): fills the driver's buffers from a source of the host's.</summary>
public sealed class RngBackend : VhostUserDevice, IDisposable
{
    /// <summary>Where random bytes come from if nothing else is said.</summary>
    public const string DefaultSource = "/dev/urandom";

    private readonly FileDescriptor _source;
    private readonly string _path;
    private readonly TokenBucket? _limit;

    /// <summary>Opens the source.</summary>
    /// <param name="source">A device or file; a regular file that is read to its end gives no more.</param>
    /// <param name="bytesPerSecond">The most bytes a second; null for no limit.</param>
    /// <exception cref="ErrnoException">It cannot be opened.</exception>
    public RngBackend(string source, ulong? bytesPerSecond)
    {
        _path = source;
        if (FileKind.IsDirectory(source))
            throw new ErrnoException($"cannot use {source}", Errnos.Eisdir, "give a device or a file");
        _source = FileDescriptor.Open(source, OpenMode.ReadNonBlocking);
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
    public override IRingHandler StartRing(BackendRing ring) => new RngRing(_source, _path, _limit);

    /// <inheritdoc/>
    public void Dispose() => _source.Dispose();
}
