using System.Net;
using System.Net.Sockets;
using Vmm.Devices.Backends.Net;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Devices.Backends.Net;

/// <summary>A network back-end on UDP, which needs no root, and the other ends of its wires.</summary>
internal sealed class UdpWires : IDisposable
{
    private UdpWires(NetBackend device, Socket[] sockets)
    {
        Device = device;
        Sockets = sockets;
    }

    public NetBackend Device { get; }

    /// <summary>One for each pair.</summary>
    public Socket[] Sockets { get; }

    /// <summary>Pairs use consecutive ports: some that are free are looked for.</summary>
    public static UdpWires Open(int pairs, int? mtu = null, IPAddress? on = null)
    {
        IPAddress address = on ?? IPAddress.Loopback;
        for (int attempt = 0; ; attempt++)
        {
            int port = Random.Shared.Next(20000, 60000);
            var local = new IPEndPoint(address, port);
            var remote = new IPEndPoint(address, port + pairs);
            var sockets = new List<Socket>();
            try
            {
                for (int i = 0; i < pairs; i++)
                    sockets.Add(Connect(new IPEndPoint(address, remote.Port + i), new IPEndPoint(address, local.Port + i)));
                return new UdpWires(NetBackend.OnUdp(local, remote, pairs, mtu), [.. sockets]);
            }
            catch (Exception e) when (attempt < 20 && e is SocketException or ErrnoException)
            {
                sockets.ForEach(socket => socket.Dispose());
            }
        }
    }

    /// <summary>A socket that hears nobody else, and waits 10 s at most.</summary>
    public static Socket Connect(IPEndPoint local, IPEndPoint remote)
    {
        var socket = new Socket(local.AddressFamily, SocketType.Dgram, ProtocolType.Udp) { ReceiveTimeout = 10_000 };
        try
        {
            socket.Bind(local);
            socket.Connect(remote);
            return socket;
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    /// <summary>The next frame on a wire.</summary>
    public byte[] Receive(int pair = 0)
    {
        byte[] buffer = new byte[70000];
        return buffer[..Sockets[pair].Receive(buffer)];
    }

    public void Dispose()
    {
        Device.Dispose();
        foreach (Socket socket in Sockets)
            socket.Dispose();
    }
}
