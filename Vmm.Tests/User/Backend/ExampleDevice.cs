using System.Security.Cryptography;
using Vmm.Vhost.Native;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Backend;
using Vmm.Vhost.Virtqueue;

namespace Example;

/// <summary>A source of entropy (VIRTIO 1.2 §5.4): one queue, whose buffers are filled with random bytes.</summary>
public sealed class RandomDevice : VhostUserDevice
{
    public override string Name => "random";

    public override ulong Features => 0;

    public override int RingCount => 1;

    public override IRingHandler StartRing(BackendRing ring) => new Handler();

    /// <summary>Serves front-ends that connect to <paramref name="path"/>, one after another.</summary>
    public static void Serve(string path)
    {
        using var server = new VhostUserServer(VhostUserEndpoint.ListenOn(path), new RandomDevice());
        server.Run();
    }

    private sealed class Handler : IRingHandler
    {
        public FileDescriptor? Ready => null;   // nothing but kicks wakes this ring

        public void Process(BackendRing ring)
        {
            while (ring.TryTake(out DescriptorChain request))
            {
                foreach (GuestBuffer buffer in request.Writable)
                    RandomNumberGenerator.Fill(buffer.Span);
                ring.Complete(request.Head, (uint)request.WritableLength);
            }
            ring.Notify();
        }

        public void Drain(BackendRing ring)
        {
            // Nothing is kept: each request is completed as it is taken.
        }

        public void Dispose()
        {
        }
    }
}
