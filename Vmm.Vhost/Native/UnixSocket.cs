using Tmds.Linux;

namespace Vmm.Vhost.Native;

/// <summary>A connected stream socket of this host's that passes descriptors along with bytes (unix(7)). Non-blocking, close-on-exec.</summary>
public sealed unsafe class UnixSocket : FileDescriptor
{
    /// <summary>The longest path of a socket in bytes: sun_path of sockaddr_un with its null is 108 (unix(7)).</summary>
    public const int MaxPathBytes = 107;

    /// <summary>The most descriptors in one call: SCM_MAX_FD of the kernel is 253, and no protocol here needs more.</summary>
    public const int MaxDescriptors = 32;

    private const int MaxReceived = 253;    // SCM_MAX_FD of the kernel's include/net/scm.h

    private static readonly int s_controlSize = CMSG_SPACE(MaxDescriptors * sizeof(int));
    private static readonly int s_receivedSize = CMSG_SPACE(MaxReceived * sizeof(int));

    private UnixSocket(int fd)
        : base(fd)
    {
    }

    /// <summary>What closes the descriptors that come from the peer, and this socket itself: those that were not received are closed with it. Null
    /// where the peer is trusted.</summary>
    internal PeerDescriptors? Peer { get; set; }

    /// <summary>Two sockets that are connected with each other.</summary>
    /// <exception cref="ErrnoException">There are none to be had.</exception>
    public static (UnixSocket First, UnixSocket Second) Pair()
    {
        int* pair = stackalloc int[2];
        // SAFETY: two integers on the stack.
        return LibC.socketpair(LibC.AF_UNIX, LibC.SOCK_STREAM | LibC.SOCK_CLOEXEC | LibC.SOCK_NONBLOCK, 0, pair) == 0
            ? (new UnixSocket(pair[0]), new UnixSocket(pair[1]))
            : throw ErrnoException.FromLastError("socketpair");
    }

    /// <summary>Connects to whoever listens on <paramref name="path"/>.</summary>
    /// <exception cref="ErrnoException">Nobody listens there, or the system refused.</exception>
    public static UnixSocket Connect(string path)
    {
        int error = TryConnect(path, out UnixSocket? socket);
        return error == 0 ? socket! : throw CannotConnect(path, error);
    }

    /// <summary>What there is to say when <see cref="TryConnect"/> gave <paramref name="error"/>.</summary>
    public static ErrnoException CannotConnect(string path, int error) => error == Errnos.Enotsock
        ? new ErrnoException($"cannot connect to {path}", error, "give the path of the other side's socket")
        : new ErrnoException($"cannot connect to {path}", error);

    /// <summary>The same without an exception where nobody listens.</summary>
    /// <returns>0, or the error number.</returns>
    public static int TryConnect(string path, out UnixSocket? socket)
    {
        sockaddr_un address = Address(path, out uint length);
        int number = Create();
        var candidate = new UnixSocket(number);
        // SAFETY: a struct on the stack. A Unix socket connects at once, or says EAGAIN when the listener's backlog is full.
        if (LibC.connect(number, (sockaddr*)&address, length) == 0)
        {
            socket = candidate;
            return 0;
        }
        int errno = Errnos.Last;
        candidate.Dispose();
        socket = null;
        // The kernel says of a file of another kind what it says of a socket that nobody listens on.
        return errno == Errnos.Econnrefused && FileKind.LeadsToOtherThanSocket(path) ? Errnos.Enotsock : errno;
    }

    internal const string InheritAdvice = "give the number of a socket that was opened for this process";

    /// <summary>Takes over descriptor <paramref name="number"/>, which the process was started with, if it is a connected Unix stream socket.</summary>
    /// <exception cref="ErrnoException">It is none; the descriptor stays open.</exception>
    public static UnixSocket Adopt(int number) => Adopt(number, InheritAdvice);

    private static UnixSocket Adopt(int number, string? advice)
    {
        if (Option(number, LibC.SO_DOMAIN) != LibC.AF_UNIX || Option(number, LibC.SO_TYPE) != LibC.SOCK_STREAM
            || Option(number, LibC.SO_ACCEPTCONN) != 0)
        {
            throw new ErrnoException($"fd {number} is no connected Unix stream socket", Errnos.Einval, advice);
        }
        MakeOurs(number);
        return new UnixSocket(number);
    }

    /// <summary>Takes over <paramref name="descriptor"/>, which a peer sent, if it is a connected Unix stream socket.</summary>
    /// <param name="descriptor">Closed afterwards; open, and the caller's, if this fails.</param>
    /// <exception cref="ErrnoException">It is no such socket.</exception>
    public static UnixSocket Adopt(FileDescriptor descriptor)
    {
        UnixSocket socket;
        using (HeldDescriptor held = descriptor.Hold())
            socket = Adopt(held.Number, advice: null);
        descriptor.SetHandleAsInvalid();
        return socket;
    }

    /// <summary>Sends some of <paramref name="data"/>, and all of <paramref name="descriptors"/> with its first byte. An interrupted call is
    /// repeated.</summary>
    /// <returns>Bytes sent, at least one; less than 0: the negated error number. Then nothing was sent.</returns>
    public int TrySend(ReadOnlySpan<byte> data, ReadOnlySpan<FileDescriptor> descriptors)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(descriptors.Length, MaxDescriptors, nameof(descriptors));
        int count = 0;
        using HeldDescriptor held = Hold();
        try
        {
            for (; count < descriptors.Length; count++)
            {
                bool isHeld = false;
                descriptors[count].DangerousAddRef(ref isHeld);
            }
            return TrySendHeld(held.Number, data, descriptors);
        }
        finally
        {
            while (count > 0)
                descriptors[--count].DangerousRelease();
        }
    }

    // All of them stay open meanwhile.
    private static int TrySendHeld(int socket, ReadOnlySpan<byte> data, ReadOnlySpan<FileDescriptor> descriptors)
    {
        byte* control = stackalloc byte[s_controlSize];
        fixed (byte* pointer = data)
        {
            var part = new iovec { iov_base = pointer, iov_len = data.Length };
            var message = new msghdr { msg_iov = &part, msg_iovlen = 1 };
            if (!descriptors.IsEmpty)
            {
                message.msg_control = control;
                message.msg_controllen = CMSG_SPACE(descriptors.Length * sizeof(int));
                new Span<byte>(control, s_controlSize).Clear();
                cmsghdr* header = LibC.CMSG_FIRSTHDR(&message);
                header->cmsg_level = LibC.SOL_SOCKET;
                header->cmsg_type = LibC.SCM_RIGHTS;
                header->cmsg_len = CMSG_LEN(descriptors.Length * sizeof(int));
                int* numbers = (int*)LibC.CMSG_DATA(header);
                for (int i = 0; i < descriptors.Length; i++)
                    numbers[i] = (int)descriptors[i].DangerousGetHandle();
            }
            while (true)
            {
                // SAFETY: everything that the header names is pinned or on the stack. Without descriptors by send(2), which has no address: a
                // confined process may be allowed no more than that.
                long result = descriptors.IsEmpty
                    ? (long)LibC.send(socket, pointer, data.Length, LibC.MSG_NOSIGNAL | LibC.MSG_DONTWAIT)
                    : (long)LibC.sendmsg(socket, &message, LibC.MSG_NOSIGNAL | LibC.MSG_DONTWAIT);
                if (result >= 0)
                    return (int)result;
                int errno = Errnos.Last;
                if (errno != Errnos.Eintr)
                    return -errno;
            }
        }
    }

    /// <summary>Receives what is there, at most <paramref name="buffer"/>. Descriptors that come with it are added to
    /// <paramref name="descriptors"/>, whatever else happens: they are the caller's to close, which never waits for the peer. An interrupted call is
    /// repeated.</summary>
    /// <param name="buffer">Where the bytes go.</param>
    /// <param name="descriptors">Where the descriptors go.</param>
    /// <param name="truncated">Whether there were more descriptors than this process may have; the kernel has closed those.</param>
    /// <returns>Bytes received, 0 at the end; less: the negated error number, EPROTO where the peer has sent a byte out of band.</returns>
    public int TryReceive(Span<byte> buffer, List<FileDescriptor> descriptors, out bool truncated)
    {
        byte* control = stackalloc byte[s_receivedSize];    // for all that can come: what has no room the kernel closes, on this thread
        truncated = false;
        Span<PollEntry> entries = [new PollEntry(this, PollEvents.Readable | PollEvents.Priority)];
        Poll.Wait(entries, 0);
        if (entries[0].Happened == PollEvents.None)
            return -Errnos.Eagain;
        // The kernel drops it when the bytes before it have been read, and closes the descriptors that came with it, on this thread.
        if ((entries[0].Happened & PollEvents.Priority) != 0)
            return -Errnos.Eproto;
        using HeldDescriptor held = Hold();
        fixed (byte* pointer = buffer)
        {
            var part = new iovec { iov_base = pointer, iov_len = buffer.Length };
            while (true)
            {
                var message = new msghdr { msg_iov = &part, msg_iovlen = 1, msg_control = control, msg_controllen = s_receivedSize };
                // SAFETY: everything that the header names is pinned or on the stack.
                long result = (long)LibC.recvmsg(held.Number, &message, LibC.MSG_CMSG_CLOEXEC | LibC.MSG_DONTWAIT);
                if (result < 0)
                {
                    int errno = Errnos.Last;
                    if (errno == Errnos.Eintr)
                        continue;
                    return -errno;
                }
                for (cmsghdr* header = LibC.CMSG_FIRSTHDR(&message); header != null; header = LibC.CMSG_NXTHDR(&message, header))
                {
                    if (header->cmsg_level != LibC.SOL_SOCKET || header->cmsg_type != LibC.SCM_RIGHTS)
                        continue;
                    int count = ((int)header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
                    int* numbers = (int*)LibC.CMSG_DATA(header);
                    for (int i = 0; i < count; i++)
                        descriptors.Add(new PeerDescriptor(numbers[i], Peer ?? PeerDescriptors.Others));
                }
                truncated = (message.msg_flags & LibC.MSG_CTRUNC) != 0;
                return (int)result;
            }
        }
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle()
    {
        if (Peer is not { } peer)
            return base.ReleaseHandle();
        // At once: the peer sees the end, and can send nothing more.
        _ = LibC.shutdown((int)handle, LibC.SHUT_RDWR);
        peer.Close((int)handle);
        return true;
    }

    /// <summary>Ends the connection in both directions (shutdown(2)): the peer and everybody who waits here sees its end. The descriptor
    /// stays open.</summary>
    public void Shutdown() => Shutdown(LibC.SHUT_RDWR);

    /// <summary>Ends the directions that <paramref name="how"/> names. A connection that has ended already needs no more.</summary>
    internal void Shutdown(int how)
    {
        using HeldDescriptor held = Hold();
        _ = LibC.shutdown(held.Number, how);
    }

    /// <summary>The number of the process that connected to this host's listening socket, or that listened on the socket we connected to
    /// (SO_PEERCRED); 0 where the system does not say, as of a process in another PID namespace. A process may have passed its end on.</summary>
    public int PeerProcessId => Credentials() is { } credentials ? Math.Max(credentials.Process, 0) : 0;

    /// <summary>The number of the user of that process, when it connected or listened; null where the system does not say.</summary>
    public uint? PeerUserId => Credentials()?.User;

    private (int Process, uint User)? Credentials()
    {
        using HeldDescriptor held = Hold();
        int* credentials = stackalloc int[3];   // struct ucred: pid, uid, gid
        socklen_t length = 3 * sizeof(int);
        // SAFETY: twelve bytes on the stack, of the length given.
        return LibC.getsockopt(held.Number, LibC.SOL_SOCKET, LibC.SO_PEERCRED, credentials, &length) == 0 ? (credentials[0], (uint)credentials[1]) : null;
    }

    /// <summary>An unconnected socket.</summary>
    internal static int Create()
    {
        int fd = LibC.socket(LibC.AF_UNIX, LibC.SOCK_STREAM | LibC.SOCK_CLOEXEC | LibC.SOCK_NONBLOCK, 0);
        return fd >= 0 ? fd : throw ErrnoException.FromLastError("socket");
    }

    /// <summary>The address of <paramref name="path"/>.</summary>
    /// <exception cref="ErrnoException">The path is empty, longer than <see cref="MaxPathBytes"/>, or has a zero byte.</exception>
    internal static sockaddr_un Address(string path, out uint length)
    {
        byte[] bytes = ByteText.Encode(path);
        if (bytes.Length is 0 or > MaxPathBytes)
        {
            throw new ErrnoException(
                $"{path} cannot name a socket", Errnos.Enametoolong, $"a socket's path is 1 to {MaxPathBytes} bytes long, this one {bytes.Length}");
        }
        if (path.Contains('\0', StringComparison.Ordinal))   // behind which the kernel does not look
            throw new ErrnoException($"{path.Replace("\0", "\\0", StringComparison.Ordinal)} cannot name a socket", Errnos.Einval, "a path has no zero byte");
        sockaddr_un address = default;
        address.sun_family = LibC.AF_UNIX;
        bytes.CopyTo(new Span<byte>(address.sun_path, MaxPathBytes));
        length = (uint)sizeof(sockaddr_un);
        return address;
    }

    /// <summary>A connected socket that accept(2) gave.</summary>
    internal static UnixSocket FromAccept(int number, PeerDescriptors? peer) => new(number) { Peer = peer };

    // What was inherited is neither close-on-exec nor non-blocking.
    internal static void MakeOurs(int number)
    {
        if (LibC.fcntl(number, LibC.F_SETFD, LibC.FD_CLOEXEC) < 0)
            throw ErrnoException.FromLastError($"fcntl(fd {number})");
        using var borrowed = new FileDescriptor(number, ownsHandle: false);
        borrowed.SetNonBlocking();
    }

    /// <summary>An integer option of SOL_SOCKET, or -1 if <paramref name="number"/> is no socket.</summary>
    internal static int Option(int number, int option)
    {
        int value = -1;
        socklen_t length = sizeof(int);
        // SAFETY: an integer on the stack, of the length given.
        return LibC.getsockopt(number, LibC.SOL_SOCKET, option, &value, &length) == 0 ? value : -1;
    }

    // The macros of cmsg(3), which align to the size of size_t.
    private static int CMSG_SPACE(int length) => Align.Up(sizeof(cmsghdr), sizeof(nint)) + Align.Up(length, sizeof(nint));

    private static int CMSG_LEN(int length) => Align.Up(sizeof(cmsghdr), sizeof(nint)) + length;
}
