using System.Buffers.Binary;
using Vmm.Vhost.Kernel;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Backend;

namespace Vmm.Devices.Backends.Vsock;

/// <summary>A socket device (VIRTIO 1.2 §5.10) whose other side are Unix sockets of the host's; see <see cref="VsockSwitch"/>.</summary>
public sealed class VsockBackend : VhostUserDevice, IDisposable
{
    private const int LastMoment = 1000;    // milliseconds
    private const int ReceiveQueue = 0, TransmitQueue = 1, Queues = 3;

    private readonly VsockSwitch _switch;
    private readonly VsockReceiveRing _receiveRing;     // always the same: it may hold a packet for which the guest has no buffer
    private readonly uint _guestCid;

    /// <summary>Listens for programs of the host's.</summary>
    /// <param name="path">A socket's path. Behind it, with <c>_N</c>, are the sockets on which the host's port N is.</param>
    /// <param name="guestCid">The guest's address, <see cref="VhostVsock.MinCid"/> to <see cref="VhostVsock.MaxCid"/>.</param>
    /// <param name="connects">Whether it connects to those. If not, programs accept the guest's connections at <paramref name="path"/>, where they
    /// say <c>ACCEPT N</c>.</param>
    /// <exception cref="ErrnoException">Nobody can listen there.</exception>
    public VsockBackend(string path, uint guestCid, bool connects = true)
    {
        _guestCid = guestCid;
        _switch = new VsockSwitch(path, guestCid, connects: connects);
        _receiveRing = new VsockReceiveRing(_switch);
    }

    /// <inheritdoc/>
    public override string Name => "vsock";

    /// <summary>None: streams need no feature bit (VIRTIO 1.2 §5.10.3).</summary>
    public override ulong Features => 0;

    /// <inheritdoc/>
    public override int RingCount => Queues;

    /// <inheritdoc/>
    public override int ConfigSize => sizeof(ulong);

    /// <inheritdoc/>
    public override bool IsInOrder => true;

    /// <inheritdoc/>
    public override void ReadConfig(Span<byte> config) => BinaryPrimitives.WriteUInt64LittleEndian(config, _guestCid);

    /// <inheritdoc/>
    public override IRingHandler StartRing(BackendRing ring)
    {
        switch (ring.Index)
        {
            case ReceiveQueue:
                _switch.RestartDeadlines();     // a guest that was paused could not answer
                return _receiveRing;
            case TransmitQueue:
                // QEMU 7.2 does not tell of a guest that has started again, which knows nothing of its connections.
                if (ring.HasNewDriver)
                    EndConnections();
                return new VsockTransmitRing(_switch);
            default:
                return IdleRing.Instance;       // events: the guest's address never changes while it runs
        }
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        EndConnections();
        _receiveRing.Clear();
    }

    /// <summary>The next front-end may be that of another guest, which must not get this one's connections.</summary>
    public override void FrontEndGone() => Reset();

    /// <inheritdoc/>
    public void Dispose() => _switch.Dispose();

    // Host programs have a second to take the data that the guest has sent: it powers off right after it has sent its last.
    private void EndConnections()
    {
        _switch.Flush(LastMoment);
        _switch.Clear();
    }
}
