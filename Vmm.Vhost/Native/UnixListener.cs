using Tmds.Linux;

namespace Vmm.Vhost.Native;

/// <summary>A listening Unix stream socket; readable when somebody has connected. Its file goes when it is disposed.</summary>
public sealed unsafe class UnixListener : FileDescriptor
{
    // SOMAXCONN of newer kernels; the kernel makes net.core.somaxconn of it where that is less. A program that connects while the queue is
    // full waits, or fails with EAGAIN.
    private const int Backlog = 4096;

    private const int LockPatience = 2000;      // milliseconds; a program that is not ours may have the directory's lock for ever

    private string? _path;
    private readonly (ulong Device, ulong Inode)? _identity;

    private UnixListener(int fd, string? path)
        : base(fd)
    {
        _path = path;
        _identity = path is null ? null : FileKind.Identity(path);
    }

    /// <summary>Closes the descriptors that came with connections which were never accepted, on threads of its own. Null where the processes that connect are
    /// trusted.</summary>
    internal PeerDescriptors? Peer { get; set; }

    /// <summary>Listens on <paramref name="path"/>, in the place of a socket that a process left behind.</summary>
    /// <exception cref="ErrnoException">Somebody listens there, something else is there, or the system refused; the message says what to do.</exception>
    public static UnixListener Listen(string path)
    {
        string operation = $"cannot listen on {path}";
        sockaddr_un address = UnixSocket.Address(path, out uint length);
        // Two that start at once would both find that nobody listens, and the second one would remove the first one's socket.
        using DirectoryLock? others = LockDirectory(path);
        RemoveStale(path, operation);
        int fd = UnixSocket.Create();
        // bind(2) and listen(2) follow each other at once: a process that connects between them is refused.
        // SAFETY: a struct on the stack.
        bool isBound = LibC.bind(fd, (sockaddr*)&address, length) == 0;
        if (isBound && LibC.listen(fd, Backlog) == 0)
            return new UnixListener(fd, path);
        int errno = Errnos.Last;
        if (isBound)
            Unlink(path);
        _ = LibC.close(fd);
        throw new ErrnoException(operation, errno, errno switch
        {
            Errnos.Enoent => "make its directory first, or give another path",
            Errnos.Eacces or Errnos.Eperm or Errnos.Erofs => "give a path where this user may make files",
            _ => null,
        });
    }

    /// <summary>Takes over descriptor <paramref name="number"/>, which the process was started with, if it is a listening Unix stream
    /// socket. Its file, if there is one, stays its maker's.</summary>
    /// <exception cref="ErrnoException">It is none; the descriptor stays open.</exception>
    public static UnixListener Adopt(int number)
    {
        if (!IsListening(number))
            throw new ErrnoException($"fd {number} is no listening Unix stream socket", Errnos.Einval, UnixSocket.InheritAdvice);
        UnixSocket.MakeOurs(number);
        return new UnixListener(number, null);
    }

    /// <summary>Whether descriptor <paramref name="number"/> is a listening Unix stream socket.</summary>
    public static bool IsListening(int number) =>
        UnixSocket.Option(number, LibC.SO_DOMAIN) == LibC.AF_UNIX && UnixSocket.Option(number, LibC.SO_TYPE) == LibC.SOCK_STREAM
        && UnixSocket.Option(number, LibC.SO_ACCEPTCONN) == 1;

    /// <summary>Takes a connection.</summary>
    /// <returns>Null if there is none, or it is gone already.</returns>
    /// <exception cref="ErrnoException">accept(2) failed: there are no descriptors left.</exception>
    public UnixSocket? TryAccept()
    {
        using HeldDescriptor held = Hold();
        while (true)
        {
            int fd = LibC.accept4(held.Number, null, null, LibC.SOCK_CLOEXEC | LibC.SOCK_NONBLOCK);
            if (fd >= 0)
                return UnixSocket.FromAccept(fd, Peer);
            int errno = Errnos.Last;
            if (errno is Errnos.Eagain or Errnos.Econnaborted)
                return null;
            if (errno != Errnos.Eintr)
                throw new ErrnoException("accept", errno);
        }
    }

    /// <summary>The socket's file stays when this is disposed: another process goes on listening there.</summary>
    public void LeaveFile() => _path = null;

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        // Now, though another thread may still wait for a connection, and close it then.
        RemoveFile();
        base.Dispose(disposing);
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle()
    {
        if (Peer is not { } peer)
            return base.ReleaseHandle();
        peer.Close((int)handle);
        return true;
    }

    // Before it is closed: nobody can mistake it for one that was left behind. What has that name now may be another's.
    private void RemoveFile()
    {
        if (Interlocked.Exchange(ref _path, null) is { } path && _identity is not null && FileKind.Identity(path) == _identity)
            Unlink(path);
    }

    /// <summary>Removes the socket at <paramref name="path"/> if nobody listens there, and nothing else.</summary>
    public static void RemoveStale(string path)
    {
        if (!FileKind.IsSocket(path))
            return;
        using DirectoryLock? others = LockDirectory(path);
        int error = UnixSocket.TryConnect(path, out UnixSocket? probe);
        probe?.Dispose();
        if (error == Errnos.Econnrefused)
            Unlink(path);
    }

    private static void RemoveStale(string path, string operation)
    {
        if (!FileKind.IsSocket(path))
        {
            if (FileKind.Identity(path) is not null)
                throw new ErrnoException(operation, Errnos.Eexist, "something else has that name; give another path or remove it");
            return;
        }
        int error = UnixSocket.TryConnect(path, out UnixSocket? probe);
        probe?.Dispose();
        if (error == Errnos.Econnrefused)
            Unlink(path);   // nobody listens: a process ended without removing it
        else if (error is 0 or Errnos.Eagain)
            throw new ErrnoException(operation, Errnos.Eaddrinuse, "another process listens there; give another path or stop it");
        else
            throw new ErrnoException(operation, error);
    }

    private static DirectoryLock? LockDirectory(string path) =>
        DirectoryLock.TryTake(Path.GetDirectoryName(path) switch { null => "/", "" => ".", var directory => directory }, LockPatience);

    private static void Unlink(string path)
    {
        fixed (byte* name = NullTerminated(path))
        {
            // SAFETY: null-terminated and pinned. What cannot be removed is replaced by the next one that listens.
            _ = LibC.unlink(name);
        }
    }
}
