using Vmm.Devices.Backends.FileSystem;
using Vmm.Vhost.User.Backend;

namespace Vmm.Tests.Devices.Backends.FileSystem;

/// <summary>A file system device of this process, with two rings that a test works by itself.</summary>
internal sealed class FuseDevice(FuseServer server, RequestPool pool) : VhostUserDevice, IDisposable
{
    /// <summary>FUSE_INIT of a client of 7.39 that offers nothing.</summary>
    public static byte[] Init => Request(26, 0, [7, 0, 0, 0, 39, 0, 0, 0, .. new byte[56]]);

    public override string Name => "fs";

    public override ulong Features => 0;

    public override int RingCount => 2;

    /// <summary>What works the ring that was started last.</summary>
    public FileSystemRing? Handler { get; private set; }

    /// <summary>The bytes of a request.</summary>
    /// <param name="code">FUSE_* of linux/fuse.h.</param>
    /// <param name="node">The file.</param>
    /// <param name="arguments">What stands behind the header.</param>
    public static byte[] Request(uint code, ulong node, byte[] arguments) =>
    [
        .. BitConverter.GetBytes(40 + arguments.Length), .. BitConverter.GetBytes(code), .. BitConverter.GetBytes(1UL), .. BitConverter.GetBytes(node), .. new byte[16],
        .. arguments,
    ];

    // The driver is on the same thread: there is nothing to look for in vain (two processors), nor to gather (one).
    public override IRingHandler StartRing(BackendRing ring) => Handler = new FileSystemRing(server, pool, processors: 0);

    public void Dispose() => server.Reset();
}
