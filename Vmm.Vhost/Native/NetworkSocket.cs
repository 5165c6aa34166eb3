using System.Buffers.Binary;
using Tmds.Linux;
using static Vmm.Vhost.Native.BpfInstruction;

namespace Vmm.Vhost.Native;

/// <summary>Sockets by which a program talks to the kernel about network interfaces.</summary>
public sealed unsafe class NetworkSocket : FileDescriptor
{
    private const int AfNetlink = 16;          // AF_NETLINK, NETLINK_ROUTE, RTMGRP_LINK: linux/netlink.h, linux/rtnetlink.h
    private const int NetlinkRoute = 0;
    private const uint GroupLink = 1;
    private const int AttachFilter = 26;       // SO_ATTACH_FILTER of asm-generic/socket.h
    private const ushort NewLink = 16, DelLink = 17;    // RTM_NEWLINK, RTM_DELLINK

    private NetworkSocket(int fd)
        : base(fd)
    {
    }

    /// <summary>A socket for the ioctls of netdevice(7). The kernel takes them on a socket of any family; on this one nothing can be sent.</summary>
    /// <exception cref="ErrnoException">There is none to be had.</exception>
    public static NetworkSocket ForIoctls() =>
        Create(LibC.socket(LibC.AF_UNIX, LibC.SOCK_STREAM | LibC.SOCK_CLOEXEC, 0));

    /// <summary>A socket that becomes readable whenever some interface of this network namespace changes (rtnetlink(7), RTMGRP_LINK). It receives
    /// nothing else: the kernel drops answers to what is sent on it. So an attacker who takes the process over does not learn the host's network by it.</summary>
    /// <exception cref="ErrnoException">There is none to be had.</exception>
    public static NetworkSocket ForLinkChanges()
    {
        NetworkSocket socket = Create(LibC.socket(AfNetlink, LibC.SOCK_RAW | LibC.SOCK_CLOEXEC | LibC.SOCK_NONBLOCK, NetlinkRoute));
        try
        {
            using HeldDescriptor held = socket.Hold();
            var address = new SockaddrNl { Family = AfNetlink, Groups = GroupLink };
            uint length = (uint)sizeof(SockaddrNl);
            // SAFETY: a struct on the stack, of the length given.
            if (LibC.bind(held.Number, (sockaddr*)&address, length) < 0)
                throw ErrnoException.FromLastError("bind(netlink)");
            socklen_t filled = length;
            if (LibC.getsockname(held.Number, (sockaddr*)&address, &filled) < 0)
                throw ErrnoException.FromLastError("getsockname(netlink)");
            PassLinkChangesOnly(held.Number, address.Port);
            return socket;
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    // A message of the kernel has the port of a socket in it: an answer that of the asker, an announcement that of the process that made the change. The header
    // (struct nlmsghdr) has the host's byte order, and the filter reads it in that of the network.
    private static void PassLinkChangesOnly(int socket, uint port)
    {
        BpfInstruction* program = stackalloc BpfInstruction[]
        {
            new(LoadHalfWord, 0, 0, 4),                                             // the message's type
            new(JumpEqual, 1, 0, BinaryPrimitives.ReverseEndianness(NewLink)),
            new(JumpEqual, 0, 2, BinaryPrimitives.ReverseEndianness(DelLink)),
            new(LoadWord, 0, 0, 12),                                                // its port
            new(JumpEqual, 0, 1, BinaryPrimitives.ReverseEndianness(port)),
            new(Return, 0, 0, 0),                                                   // drop it
            new(Return, 0, 0, uint.MaxValue),                                       // pass it
        };
        var header = new BpfProgram { Length = 7, Instructions = program };
        // SAFETY: both are on the stack; the kernel copies them.
        if (LibC.setsockopt(socket, LibC.SOL_SOCKET, AttachFilter, &header, (uint)sizeof(BpfProgram)) < 0)
            throw ErrnoException.FromLastError("setsockopt(SO_ATTACH_FILTER)");
    }

    /// <summary>Takes all messages off the socket, unread.</summary>
    public void Drain()
    {
        Span<byte> buffer = stackalloc byte[256];
        // A message that is longer is cut. An overrun (ENOBUFS) only says that there was more. Other errors are for the next time: the socket is
        // readable still.
        while (this.TryRead(buffer) is >= 0 or -Errnos.Enobufs)
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
