using Tmds.Linux;

namespace Vmm.Vhost.Native;

/// <summary>Ends one direction of a connection (shutdown(2)). One that has ended already needs no more: no errors.</summary>
public static class UnixSocketDirections
{
    /// <summary>The peer reads what was sent, and then the end, also where somebody else has this end, too. Nothing is done to what is no socket.</summary>
    public static void EndSending(this FileDescriptor descriptor)
    {
        using HeldDescriptor held = descriptor.Hold();
        _ = LibC.shutdown(held.Number, LibC.SHUT_WR);
    }

    /// <summary>What the peer still sends is of no interest: its writes fail.</summary>
    public static void EndReceiving(this UnixSocket socket) => socket.Shutdown(LibC.SHUT_RD);
}
