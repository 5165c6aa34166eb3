using System.Runtime.InteropServices;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Vhost.User.Backend;

/// <content>Memory for what is in flight.</content>
internal sealed partial class BackendSession
{
    private InflightMemory? _inflight;
    private KeptMemory? _kept;

    private void GetInflight(VhostUserMessage message)
    {
        InflightPayload wanted = ReadInflight(message);
        // A size of 0 says that there is none; the front-end goes on without.
        var reply = new InflightPayload(0, 0, wanted.RingCount, wanted.QueueSize);
        ulong size = Align.Up(InflightMemory.SizeOf(wanted.RingCount, wanted.QueueSize) + (ulong)_device.KeptMemorySize, (ulong)Environment.SystemPageSize);
        FileDescriptor? file = null;
        try
        {
            if (IsPossible(in wanted))
                file = MemFd.Create("vhost-user-inflight", size);
        }
        catch (ErrnoException e)
        {
            s_log.Warn("{Device}: {Error}: nothing keeps track of what is in flight", _device.ServedAs, e.Message);
        }
        using (file)
        {
            if (file is not null)
                reply = reply with { MmapSize = size };
            Reply(VhostUserRequest.GetInflightFd, MemoryMarshal.AsBytes(new ReadOnlySpan<InflightPayload>(in reply)), file is null ? [] : [file]);
        }
    }

    private void SetInflight(VhostUserMessage message)
    {
        InflightPayload payload = ReadInflight(message);
        using FileDescriptor file = message.TakeDescriptor()!;
        if (!IsPossible(in payload))
            throw new RefusedException($"{payload.RingCount} rings of {payload.QueueSize} are not possible");
        InflightMemory inflight = InflightMemory.Map(in payload, file);
        PauseAll(mayLeave: false);
        ForgetKept();
        _inflight?.Dispose();
        _inflight = inflight;
        _kept = inflight.Kept(_device.KeptMemorySize);
        if (_kept is not null)
            _device.MemoryKept(_kept);
        ResumeAll();
    }

    // No ring runs.
    private void ForgetKept()
    {
        if (_kept is null)
            return;
        _device.MemoryKept(null);
        _kept.End();
        _kept = null;
    }

    private bool IsPossible(in InflightPayload payload) =>
        payload.RingCount >= 1 && payload.RingCount <= _rings.Length
        && payload.QueueSize >= 1 && payload.QueueSize <= Math.Min(RingLayout.MaxSize, _device.MaxQueueSize);

    // 20 bytes, or 24 as a C compiler pads them.
    private static InflightPayload ReadInflight(VhostUserMessage message)
    {
        Span<byte> bytes = stackalloc byte[InflightPayload.WireSize];
        bytes.Clear();
        message.Payload.CopyTo(bytes);
        return MemoryMarshal.Read<InflightPayload>(bytes);
    }
}
