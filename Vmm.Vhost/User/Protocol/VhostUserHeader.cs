using System.Runtime.InteropServices;

namespace Vmm.Vhost.User.Protocol;

/// <summary>What every message begins with (vhost-user.rst, "Header"), in the byte order of the host.</summary>
/// <param name="Request">A <see cref="VhostUserRequest"/> or <see cref="VhostUserBackendRequest"/>.</param>
/// <param name="Flags">Version and flags, see <see cref="VhostUserFlags"/>.</param>
/// <param name="Size">Bytes of payload that follow.</param>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct VhostUserHeader(uint Request, VhostUserFlags Flags, uint Size)
{
    /// <summary>Bytes on the wire.</summary>
    public const int WireSize = 12;

    /// <summary>The largest payload that is accepted, in bytes: the newest messages stay well below, and a peer cannot make us
    /// allocate more.</summary>
    public const int MaxPayload = 4096;

    /// <summary>The most descriptors that a message may carry. Messages say by themselves how many they need; nobody sends more than
    /// 32 regions.</summary>
    public const int MaxDescriptors = 32;
}

/// <summary>The flags of <see cref="VhostUserHeader"/>.</summary>
[Flags]
public enum VhostUserFlags : uint
{
    /// <summary>The version, in the two lowest bits.</summary>
    Version1 = 1,

    /// <summary>The bits of the version.</summary>
    VersionMask = 3,

    /// <summary>The message is a reply.</summary>
    Reply = 1 << 2,

    /// <summary>The sender wants a reply (only with <see cref="VhostUserProtocolFeatures.ReplyAck"/>).</summary>
    NeedReply = 1 << 3,
}
