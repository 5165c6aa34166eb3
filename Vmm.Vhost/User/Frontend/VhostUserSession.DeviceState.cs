using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Vhost.User.Frontend;

// The inner state of the back-end's device, saved and restored as a stream of bytes.
public sealed partial class VhostUserSession
{
    private const ulong DeviceStateErrorMask = 0xFF;

    /// <summary>SET_DEVICE_STATE_FD: begins to save or to restore. Rings are stopped.</summary>
    /// <param name="parameters">Direction and phase.</param>
    /// <param name="stream">What the back-end writes to or reads from, such as an end of a pipe; it stays the caller's.</param>
    /// <returns>What the back-end wants to be used instead of the other end, the caller's to close; null if it took
    /// <paramref name="stream"/>.</returns>
    public FileDescriptor? SetDeviceState(in DeviceStatePayload parameters, FileDescriptor stream)
    {
        using VhostUserMessage reply = Ask(
            VhostUserRequest.SetDeviceStateFd, Bytes(in parameters), PayloadSize.U64, PayloadSize.U64, maxDescriptors: 1, descriptors: stream);
        ulong result = reply.Read<ulong>();
        if ((result & DeviceStateErrorMask) != 0)
            throw Refused(VhostUserRequest.SetDeviceStateFd, $"0x{result:x}");
        bool hasDescriptor = (result & VringDescriptor.NoFd) == 0;
        return hasDescriptor == (reply.DescriptorCount == 1)
            ? reply.TakeDescriptor()
            : throw Break(VhostUserRequest.SetDeviceStateFd, "the peer's answer does not say truly whether it brings a descriptor");
    }

    /// <summary>CHECK_DEVICE_STATE: whether all of the state came through, asked after the stream's end.</summary>
    public void CheckDeviceState()
    {
        if (AskNumber(VhostUserRequest.CheckDeviceState) is not 0 and var result)
            throw Refused(VhostUserRequest.CheckDeviceState, $"0x{result:x}");
    }
}
