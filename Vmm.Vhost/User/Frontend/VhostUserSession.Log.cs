using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Vhost.User.Frontend;

// The log of pages that the back-end wrote to.
public sealed partial class VhostUserSession
{
    /// <summary>SET_LOG_BASE: where the back-end logs, a bit for each page of 4 KiB.</summary>
    /// <param name="log">The part of <paramref name="file"/> that is the log.</param>
    /// <param name="file">Its file, which stays the caller's.</param>
    public void SetLog(in LogPayload log, FileDescriptor file)
    {
        if (!Agreed(VhostUserProtocolFeatures.LogShmFd))
            throw NotAgreed(VhostUserRequest.SetLogBase, $"the protocol feature {VhostUserProtocolFeatures.LogShmFd} was not agreed on");
        // The reply is empty, or has the log again, or a number that libvhost-user never set: it only says that the log is in use.
        Ask(VhostUserRequest.SetLogBase, Bytes(in log), 0, LogPayload.WireSize, descriptors: file).Dispose();
    }

    /// <summary>SET_LOG_BASE of back-ends without <see cref="VhostUserProtocolFeatures.LogShmFd"/>: an address in their own terms.</summary>
    public void SetLogAddress(ulong address)
    {
        if (Agreed(VhostUserProtocolFeatures.LogShmFd))
            throw NotAgreed(VhostUserRequest.SetLogBase, $"with {VhostUserProtocolFeatures.LogShmFd} it carries a file");
        Tell(VhostUserRequest.SetLogBase, address);
    }

    /// <summary>SET_LOG_FD: signalled by the back-end when it has logged something.</summary>
    public void SetLogSignal(FileDescriptor signal) => Tell(VhostUserRequest.SetLogFd, default(ReadOnlySpan<byte>), signal);
}
