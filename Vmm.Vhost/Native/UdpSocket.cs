using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;

namespace Vmm.Vhost.Native;

/// <summary>A UDP socket between two fixed addresses: what it sends goes to one, and it hears nobody else. Non-blocking,
/// close-on-exec.</summary>
public sealed unsafe partial class UdpSocket : FileDescriptor
{
    private const int Datagram = 2, NonBlockingCloseOnExec = 0x80800;                     // SOCK_DGRAM; SOCK_NONBLOCK | SOCK_CLOEXEC
    private const int SolSocket = 1, SoReceiveBuffer = 8, SoReceiveBufferForce = 33;      // asm-generic/socket.h
    private const int InetFamily = 2, Inet6Family = 10;

    private UdpSocket(int fd)
        : base(fd)
    {
    }

    /// <summary>A socket at <paramref name="local"/> that talks with <paramref name="remote"/>.</summary>
    /// <param name="local">An address of this host's.</param>
    /// <param name="remote">An address of the same family.</param>
    /// <param name="receiveBuffer">Room for what has arrived and was not read yet, in bytes; the kernel gives a process that is
    /// not root at most net.core.rmem_max.</param>
    /// <exception cref="ErrnoException">The system refused; the message names the address.</exception>
    public static UdpSocket Connect(IPEndPoint local, IPEndPoint remote, int receiveBuffer)
    {
        int family = local.AddressFamily == AddressFamily.InterNetworkV6 ? Inet6Family : InetFamily;
        int number = SystemSocket(family, Datagram | NonBlockingCloseOnExec, 0);
        if (number < 0)
            throw new ErrnoException("socket(UDP)", Marshal.GetLastPInvokeError());
        var socket = new UdpSocket(number);
        try
        {
            if (!socket.TrySetOption(SoReceiveBufferForce, receiveBuffer))
                socket.TrySetOption(SoReceiveBuffer, receiveBuffer);
            socket.Use(local, SystemBind, "cannot use");
            socket.Use(remote, SystemConnect, "cannot send to");
            return socket;
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    private void Use(IPEndPoint endPoint, AddressCall call, string attempt)
    {
        // The runtime lays addresses out as the kernel wants them.
        SocketAddress address = endPoint.Serialize();
        fixed (byte* pointer = address.Buffer.Span)
        {
            // SAFETY: pinned, and as long as is said.
            if (call(this, pointer, (uint)address.Size) < 0)
                throw new ErrnoException($"{attempt} {endPoint}", Marshal.GetLastPInvokeError());
        }
    }

    private bool TrySetOption(int option, int value) => SystemSetOption(this, SolSocket, option, &value, sizeof(int)) == 0;

    private delegate int AddressCall(FileDescriptor fd, byte* address, uint length);

    [LibraryImport("libc", EntryPoint = "socket", SetLastError = true)]
    private static partial int SystemSocket(int family, int type, int protocol);

    [LibraryImport("libc", EntryPoint = "bind", SetLastError = true)]
    private static partial int SystemBind(FileDescriptor fd, byte* address, uint length);

    [LibraryImport("libc", EntryPoint = "connect", SetLastError = true)]
    private static partial int SystemConnect(FileDescriptor fd, byte* address, uint length);

    [LibraryImport("libc", EntryPoint = "setsockopt", SetLastError = true)]
    private static partial int SystemSetOption(FileDescriptor fd, int level, int option, int* value, uint length);
}
