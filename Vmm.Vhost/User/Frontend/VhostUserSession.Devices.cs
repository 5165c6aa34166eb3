using System.Runtime.InteropServices;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Vhost.User.Frontend;

// What one type of device needs, and the status of all.
public sealed partial class VhostUserSession
{
    private const int ShmemSizesOffset = 8;

    /// <summary>SET_STATUS: the virtio status (VIRTIO 1.2 §2.1) as the driver sees it.</summary>
    public void SetStatus(byte status) => Tell(VhostUserRequest.SetStatus, (ulong)status);

    /// <summary>GET_STATUS: the status as the back-end sees it, which may have taken FEATURES_OK away or added DEVICE_NEEDS_RESET.</summary>
    public byte GetStatus()
    {
        ulong status = AskNumber(VhostUserRequest.GetStatus);
        return status <= byte.MaxValue ? (byte)status : throw Break(VhostUserRequest.GetStatus, $"the peer has a status 0x{status:x}");
    }

    /// <summary>SEND_RARP: a network back-end announces the guest's address, after a migration.</summary>
    /// <param name="mac">The address's 6 bytes, the first in the lowest bits; bits 63:48 are 0.</param>
    public void SendRarp(ulong mac) => Tell(VhostUserRequest.SendRarp, mac);

    /// <summary>NET_SET_MTU: the largest packet that the driver was told of, in bytes; 0 to 65535.</summary>
    public void SetMtu(int mtu)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(mtu);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(mtu, ushort.MaxValue);
        Tell(VhostUserRequest.NetSetMtu, (ulong)mtu);
    }

    /// <summary>GPU_SET_SOCKET: gives a GPU back-end the socket of the vhost-user-gpu protocol.</summary>
    /// <param name="socket">Its end; it stays the caller's.</param>
    public void SetGpuSocket(FileDescriptor socket) => Tell(VhostUserRequest.GpuSetSocket, default(ReadOnlySpan<byte>), socket);

    /// <summary>CREATE_CRYPTO_SESSION: the parameters are structures of the back-end's (vhost-user.rst, "Crypto session description"), passed on as they are.</summary>
    /// <returns>The same with the session's number, or a negative one, where the structure has it.</returns>
    public byte[] CreateCryptoSession(ReadOnlySpan<byte> parameters)
    {
        using VhostUserMessage reply = Ask(VhostUserRequest.CreateCryptoSession, parameters, PayloadSize.U64, VhostUserHeader.MaxPayload);
        return reply.Payload.ToArray();
    }

    /// <summary>CLOSE_CRYPTO_SESSION.</summary>
    public void CloseCryptoSession(ulong session) => Tell(VhostUserRequest.CloseCryptoSession, session);

    /// <summary>GET_SHARED_OBJECT: the dma-buf that the back-end has under a name.</summary>
    /// <returns>The caller's to close; null if it has none.</returns>
    public FileDescriptor? GetSharedObject(Guid name)
    {
        using VhostUserMessage reply = Ask(
            VhostUserRequest.GetSharedObject, name.ToByteArray(bigEndian: true), 0, PayloadSize.Uuid, maxDescriptors: 1);
        return reply.TakeDescriptor();
    }

    /// <summary>GET_SHMEM_CONFIG: the sizes in bytes of the device's shared-memory regions (VIRTIO 1.2 §2.10) by their ids; 0 where there is none.</summary>
    public ulong[] GetSharedMemorySizes()
    {
        using VhostUserMessage reply = Ask(VhostUserRequest.GetShmemConfig, default, PayloadSize.ShmemConfig, PayloadSize.ShmemConfig);
        ulong[] sizes = MemoryMarshal.Cast<byte, ulong>(reply.Payload[ShmemSizesOffset..]).ToArray();
        // Their number is that of the sizes that are not 0, wherever they are.
        uint count = reply.Read<uint>();
        return count == sizes.Count(size => size != 0)
            ? sizes
            : throw Break(VhostUserRequest.GetShmemConfig, $"the peer has {count} regions, and sizes of {sizes.Count(size => size != 0)}");
    }
}
