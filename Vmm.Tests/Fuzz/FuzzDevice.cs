using Vmm.Vhost.Native;
using Vmm.Vhost.User.Backend;
using Vmm.Vhost.User.Protocol;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Tests.Fuzz;

/// <summary>A device that uses all that the library has: keeps some requests for later, puts some back, completes them in any order,
/// abandons what it may, and touches every byte of every buffer.</summary>
internal sealed class FuzzDevice : VhostUserDevice
{
    private int _rings;
    private int _requests;

    public override string Name => "fuzz";

    public override ulong Features => 0xFF;

    public override int RingCount => 3;

    public override int ConfigSize => 16;

    public override VhostUserProtocolFeatures ProtocolFeatures =>
        VhostUserProtocolFeatures.Rarp | VhostUserProtocolFeatures.Mtu | VhostUserProtocolFeatures.DeviceState
        | VhostUserProtocolFeatures.Shmem | VhostUserProtocolFeatures.InbandNotifications;

    public override IReadOnlyList<ulong> SharedMemorySizes => [0x1000];

    public override bool WriteConfig(int offset, ReadOnlySpan<byte> data) => offset % 2 == 0;

    public override bool SendRarp(ReadOnlySpan<byte> mac) => mac[0] % 2 == 0;

    public override bool SetMtu(int mtu) => mtu < 1500;

    public override byte[]? SaveState() => [1, 2, 3];

    public override bool LoadState(ReadOnlySpan<byte> state) => state.Length < 10;

    /// <summary>Rings that were started, and requests that were taken: how far the sessions get.</summary>
    public (int Rings, int Requests) Reached => (_rings, _requests);

    public override IRingHandler StartRing(BackendRing ring)
    {
        Interlocked.Increment(ref _rings);
        return new Handler(this);
    }

    private sealed class Handler(FuzzDevice device) : IRingHandler
    {
        private readonly List<ushort> _kept = [];
        private uint _count;

        public FileDescriptor? Ready => null;

        public void Process(BackendRing ring)
        {
            // A driver can keep this ring full for ever: the library's turns end all the same.
            while (ring.TryTake(out DescriptorChain chain))
            {
                _count++;
                Interlocked.Increment(ref device._requests);
                if (_count % 7 == 0)
                {
                    ring.PutBack(chain.Head);
                    if (!ring.TryTake(out chain))
                        break;
                }
                uint written = Touch(in chain);
                if (_count % 3 == 0)
                    _kept.Add(chain.Head);
                else
                    ring.Complete(chain.Head, written);
                if (_kept.Count > 4)
                    Release(ring);
            }
            ring.Notify();
        }

        public void Drain(BackendRing ring)
        {
            if (ring.MayLeave)
                _kept.Clear();
            Release(ring);
        }

        public void Dispose()
        {
        }

        private static uint Touch(ref readonly DescriptorChain chain)
        {
            byte sum = 0;
            foreach (GuestBuffer buffer in chain.Readable)
            {
                foreach (byte one in buffer.Span)
                    sum += one;
            }
            foreach (GuestBuffer buffer in chain.Writable)
                buffer.Span.Fill(sum);
            return (uint)chain.WritableLength;
        }

        private void Release(BackendRing ring)
        {
            for (int i = _kept.Count - 1; i >= 0; i--)
                ring.Complete(_kept[i], 1);
            _kept.Clear();
        }
    }
}
