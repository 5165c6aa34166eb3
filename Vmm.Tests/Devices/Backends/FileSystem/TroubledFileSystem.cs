using NUnit.Framework;
using Vmm.Tests.Integration.Linux.Devices;

namespace Vmm.Tests.Devices.Backends.FileSystem;

/// <summary>A file system that a server keeps, which does not always answer soon: a few files, by FUSE. Gone when disposed, with the requests that it has not answered.</summary>
/// <remarks>
/// <c>full</c>: closing it gives EDQUOT, as NFS says then what a write could not say. <c>slow</c>: each write takes <see cref="Delay"/>. <c>hidden</c>: to look it up
/// takes as long. <c>old</c>: once it is renamed to <c>new</c>, to look that up takes as long. <c>broken</c>: 128 KiB, of which the second half cannot be read (EIO). <c>flushed</c>: to close it
/// takes as long, and <see cref="HasFlush"/> says that this has begun. <c>locked</c>: the first lock is refused at once, the second after that time, and others are had.
/// </remarks>
internal sealed class TroubledFileSystem : IDisposable
{
    /// <summary>How long the server takes for what it does late.</summary>
    public static readonly TimeSpan Delay = TimeSpan.FromSeconds(3);

    private const string Server = """
        import ctypes, errno, os, select, struct, sys, time
        where, ready, delay = sys.argv[1], sys.argv[2], float(sys.argv[3])
        fd = os.open('/dev/fuse', os.O_RDWR)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b'troubled', where.encode(), b'fuse', 0, b'fd=%d,rootmode=40000,user_id=0,group_id=0' % fd) != 0:
            sys.exit(os.strerror(ctypes.get_errno()))
        nodes = {name: number for number, name in enumerate([b'full', b'slow', b'hidden', b'old', b'locked', b'broken', b'flushed'], 2)}
        late = []
        locks = 0

        def attributes(node):
            return struct.pack('<6Q10I', node, 131072 if node == nodes.get(b'broken') else 0, 0, 0, 0, 0, 0, 0, 0, 0o40755 if node == 1 else 0o100644, 1, 0, 0, 0, 4096, 0)

        # What to say, and how much later.
        def answer(code, node, data):
            global locks
            if code == 26:
                return struct.pack('<4IHHIIHHII', 7, 31, 0, 2, 16, 12, 65536, 1, 0, 0, 0, 0) + bytes(24), 0
            if code == 1:
                name = data.split(b'\0')[0]
                if name not in nodes:
                    return -errno.ENOENT, 0
                return struct.pack('<4QII', nodes[name], 0, 0, 0, 0, 0) + attributes(nodes[name]), delay if name in (b'hidden', b'new') else 0
            if code in (3, 4):
                return struct.pack('<QII', 0, 0, 0) + attributes(node), 0
            if code in (14, 27):
                return struct.pack('<QII', 0, 0, 0), 0
            if code == 15:
                offset, size = struct.unpack_from('<QI', data, 8)
                return -errno.EIO if offset + size > 65536 else b'x' * size, 0
            if code == 16:
                return struct.pack('<II', struct.unpack_from('<I', data, 16)[0], 0), delay if node == nodes[b'slow'] else 0
            if code == 25:
                if node == nodes.get(b'flushed'):
                    open(ready + '.flush', 'w').close()
                    return b'', delay
                return -errno.EDQUOT if node == nodes.get(b'full') else b'', 0
            if code == 10:
                del nodes[data.split(b'\0')[0]]
                return b'', 0
            if code == 12:
                old, new = data[8:].split(b'\0')[:2]
                nodes[new] = nodes.pop(old)
                return b'', 0
            if code == 17:
                return struct.pack('<5Q4I', 0, 0, 0, 0, 0, 4096, 255, 4096, 0) + bytes(24), 0
            if code == 32 and node == nodes[b'locked'] and struct.unpack_from('<I', data, 32)[0] != 2:
                locks += 1
                return -errno.EAGAIN if locks <= 2 else b'', delay if locks == 2 else 0
            if code in (18, 20, 29, 32, 34):
                return b'', 0
            return -errno.ENOSYS, 0

        def say(unique, what):
            try:
                if isinstance(what, int):
                    os.write(fd, struct.pack('<IiQ', 16, what, unique))
                else:
                    os.write(fd, struct.pack('<IiQ', 16 + len(what), 0, unique) + what)
            except OSError:
                pass    # nobody waits for it any more

        open(ready, 'w').close()
        while True:
            now = time.monotonic()
            for when, unique, what in [each for each in late if each[0] <= now]:
                open(ready + '.late', 'w').close()
                say(unique, what)
            late = [each for each in late if each[0] > now]
            if not select.select([fd], [], [], 0.05 if late else None)[0]:
                continue
            request = os.read(fd, 1 << 20)
            _, code, unique, node = struct.unpack_from('<IIQQ', request)
            if code in (2, 36, 42):
                continue
            what, wait = answer(code, node, request[40:])
            if wait:
                late.append((time.monotonic() + wait, unique, what))
            else:
                say(unique, what)
        """;

    private readonly string _path;
    private readonly HostDaemon _daemon;

    private string Ready => _path + ".ready";

    /// <summary>Mounts it.</summary>
    /// <param name="path">Where: a directory.</param>
    public TroubledFileSystem(string path)
    {
        if (!Environment.IsPrivilegedProcess || !File.Exists("/dev/fuse"))
            Assert.Ignore("a file system of a test's own is a mount by FUSE: run as root where there is /dev/fuse");
        _path = path;
        _daemon = new HostDaemon([Ready], "python3", "-c", Server, path, Ready, $"{Delay.TotalSeconds}");
    }

    /// <summary>Whether something is answered that is answered late.</summary>
    public bool HasAnsweredLate => File.Exists(Ready + ".late");

    /// <summary>Whether somebody closes <c>flushed</c>, or has closed it.</summary>
    public bool HasFlush => File.Exists(Ready + ".flush");

    /// <inheritdoc/>
    public void Dispose()
    {
        HostCommand.TryRun("umount", "--lazy", _path);
        _daemon.Dispose();
    }
}
