using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Vhost.User.Frontend;

// The memory in which a back-end keeps track of requests that it has taken, and which survives it.
public sealed partial class VhostUserSession
{
    /// <summary>GET_INFLIGHT_FD: has the back-end make that memory.</summary>
    /// <param name="rings">How many rings it is for, 1 to 65535.</param>
    /// <param name="size">Descriptors in a ring, 1 to 65535.</param>
    /// <returns>The memory and its file, the caller's to close; no file if the back-end needs none.</returns>
    /// <exception cref="ArgumentOutOfRangeException">One of the values is not what is said here. Nothing was sent.</exception>
    public (InflightPayload Description, FileDescriptor? File) GetInflight(int rings, int size)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(rings);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(rings, ushort.MaxValue);
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(size);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(size, ushort.MaxValue);
        using VhostUserMessage reply = Ask(
            VhostUserRequest.GetInflightFd,
            InflightBytes(new InflightPayload(0, 0, (ushort)rings, (ushort)size)),
            InflightPayload.MinWireSize,
            InflightPayload.WireSize,
            maxDescriptors: 1);
        Span<byte> payload = stackalloc byte[InflightPayload.WireSize];
        payload.Clear();
        reply.Payload.CopyTo(payload);
        InflightPayload description = System.Runtime.InteropServices.MemoryMarshal.Read<InflightPayload>(payload);
        if (description.MmapSize == 0)
            return (description, null);
        return reply.TakeDescriptor() is { } file
            ? (description, file)
            : throw Break(VhostUserRequest.GetInflightFd, "the peer's answer brings no descriptor");
    }

    /// <summary>SET_INFLIGHT_FD: gives the memory to the back-end, before it is told of any ring.</summary>
    public void SetInflight(in InflightPayload description, FileDescriptor file) =>
        Tell(VhostUserRequest.SetInflightFd, InflightBytes(in description), file);

    private static byte[] InflightBytes(in InflightPayload description)
    {
        byte[] payload = Bytes(in description).ToArray();
        payload.AsSpan(InflightPayload.MinWireSize).Clear();   // padding
        return payload;
    }
}
