using System.Runtime.InteropServices;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Vhost.User.Backend;

/// <content>The dirty log of a migration.</content>
internal sealed partial class BackendSession
{
    private DirtyLog? _log;
    private EventFd? _logEvent;

    private void SetLog(VhostUserMessage message)
    {
        if (!Has(VhostUserProtocolFeatures.LogShmFd))
            throw new ViolationException("LogShmFd was not agreed on");
        if (message.Payload.Length != LogPayload.WireSize || message.DescriptorCount != 1)
            throw new ViolationException($"{message.Payload.Length} bytes with {message.DescriptorCount} descriptors are no log");
        LogPayload payload = message.Read<LogPayload>();
        using FileDescriptor file = message.TakeDescriptor()!;
        SharedFile shared = SharedFile.Map(file, payload.Offset, payload.Size, "the log");
        PauseAll();
        _log?.Dispose();
        _log = new DirtyLog(shared.Mapping, shared.Start, payload.Size) { Changed = _logEvent };
        ResumeAll();
        // This one has a reply of its own, to be waited for before anything is written. Which one, vhost-user.rst leaves open. QEMU takes any. rust-vmm's vhost crate wants
        // zero before version 0.16 and the log since, and front-ends that are built with it accept DEVICE_STATE since then, too (cloud-hypervisor 52).
        if (Has(VhostUserProtocolFeatures.DeviceState))
            Reply(VhostUserRequest.SetLogBase, MemoryMarshal.AsBytes(new ReadOnlySpan<LogPayload>(in payload)));
        else
            Reply(VhostUserRequest.SetLogBase, 0UL);
    }

    private void SetLogEvent(FileDescriptor descriptor)
    {
        EventFd changed = Adopt(descriptor);
        PauseAll();
        _logEvent?.Dispose();
        _logEvent = changed;
        if (_log is not null)
            _log.Changed = changed;
        ResumeAll();
    }
}
