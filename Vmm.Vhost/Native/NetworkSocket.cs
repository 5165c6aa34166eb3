using Tmds.Linux;

namespace Vmm.Vhost.Native;

/// <summary>Sockets by which a program talks to the kernel about network interfaces.</summary>
public sealed unsafe class NetworkSocket : FileDescriptor
{
    private const int AfNetlink = 16;          // AF_NETLINK, NETLINK_ROUTE, RTMGRP_LINK: linux/netlink.h, linux/rtnetlink.h
    private const int NetlinkRoute = 0;
    private const uint GroupLink = 1;

    private NetworkSocket(int fd)
        : base(fd)
    {
    }

    /// <summary>A socket for the ioctls of netdevice(7).</summary>
    /// <exception cref="ErrnoException">There is none to be had.</exception>
    public static NetworkSocket ForIoctls() =>
        Create(LibC.socket(LibC.AF_INET, LibC.SOCK_DGRAM | LibC.SOCK_CLOEXEC, 0));

    /// <summary>A socket that becomes readable whenever some interface of this network namespace changes (rtnetlink(7), RTMGRP_LINK).</summary>
    /// <exception cref="ErrnoException">There is none to be had.</exception>
    public static NetworkSocket ForLinkChanges()
    {
        NetworkSocket socket = Create(LibC.socket(AfNetlink, LibC.SOCK_RAW | LibC.SOCK_CLOEXEC | LibC.SOCK_NONBLOCK, NetlinkRoute));
        var address = new SockaddrNl { Family = AfNetlink, Groups = GroupLink };
        using HeldDescriptor held = socket.Hold();
        // SAFETY: a struct on the stack, of the length given.
        if (LibC.bind(held.Number, (sockaddr*)&address, (uint)sizeof(SockaddrNl)) == 0)
            return socket;
        ErrnoException error = ErrnoException.FromLastError("bind(netlink)");
        socket.Dispose();
        throw error;
    }

    /// <summary>Takes all messages off the socket, unread.</summary>
    public void Drain()
    {
        byte* buffer = stackalloc byte[256];
        using HeldDescriptor held = Hold();
        // SAFETY: a buffer on the stack; a message that is longer is cut. An overrun (ENOBUFS) only says that there was more. Other errors are
        // for the next time: the socket is readable still.
        while (LibC.recv(held.Number, buffer, 256, 0) >= 0 || Errnos.Last is Errnos.Enobufs or Errnos.Eintr)
        {
        }
    }

    private static NetworkSocket Create(int fd) => fd >= 0 ? new NetworkSocket(fd) : throw ErrnoException.FromLastError("socket");

    private struct SockaddrNl
    {
        public ushort Family;
        public ushort Padding;
        public uint Port;
        public uint Groups;
    }
}
