using System.Runtime.InteropServices;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Vhost.User.Frontend;

// The configuration space of the device.
public sealed partial class VhostUserSession
{
    /// <summary>GET_CONFIG: the first bytes of the configuration space. Always from its beginning: libvhost-user takes no notice of an offset.</summary>
    /// <param name="config">Filled; 1 to <see cref="ConfigHeader.MaxConfigSize"/> bytes. A back-end refuses to give more than it has.</param>
    public void GetConfig(Span<byte> config)
    {
        ArgumentOutOfRangeException.ThrowIfZero(config.Length, nameof(config));
        ArgumentOutOfRangeException.ThrowIfGreaterThan(config.Length, ConfigHeader.MaxConfigSize, nameof(config));
        byte[] request = new byte[ConfigHeader.WireSize + config.Length];
        MemoryMarshal.Write(request, new ConfigHeader(0, (uint)config.Length, 0));
        using VhostUserMessage reply = Ask(VhostUserRequest.GetConfig, request, 0, request.Length);
        // It is refused by an empty reply, or by one with a header alone that says 0 bytes.
        int size = reply.Payload.Length;
        if (size == 0 || (size == ConfigHeader.WireSize && reply.Read<ConfigHeader>().Size == 0))
            throw Refused(VhostUserRequest.GetConfig, $"of {config.Length} bytes");
        if (size != request.Length || reply.Read<ConfigHeader>() is var header && (header.Size != (uint)config.Length || header.Offset != 0))
            throw Break(VhostUserRequest.GetConfig, $"the peer's answer is not one of {config.Length} bytes of configuration");
        reply.Payload[ConfigHeader.WireSize..].CopyTo(config);
    }

    /// <summary>SET_CONFIG: changes a part of the configuration space.</summary>
    /// <param name="offset">Where the part begins.</param>
    /// <param name="data">The part; it ends within the first <see cref="ConfigHeader.MaxConfigSize"/> bytes.</param>
    /// <param name="isMigration">Not the driver's doing: the back-end takes read-only fields, too.</param>
    public void SetConfig(int offset, ReadOnlySpan<byte> data, bool isMigration = false)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        ArgumentOutOfRangeException.ThrowIfZero(data.Length, nameof(data));
        ArgumentOutOfRangeException.ThrowIfGreaterThan(data.Length, ConfigHeader.MaxConfigSize - Math.Min(offset, ConfigHeader.MaxConfigSize), nameof(data));
        byte[] request = new byte[ConfigHeader.WireSize + data.Length];
        MemoryMarshal.Write(request, new ConfigHeader((uint)offset, (uint)data.Length, isMigration ? 1U : 0));
        data.CopyTo(request.AsSpan(ConfigHeader.WireSize));
        Tell(VhostUserRequest.SetConfig, request);
    }
}
