using System.Runtime.InteropServices;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Vhost.User.Backend;

/// <content>The device's inner state, and its shared memory.</content>
internal sealed partial class BackendSession
{
    private const ulong StateNoFd = 1 << 8;   // the transfer uses the front-end's own descriptor
    private const ulong StateError = 1;

    private StateTransfer? _stateTransfer;

    private void BeginStateTransfer(VhostUserMessage message)
    {
        DeviceStatePayload payload = message.Read<DeviceStatePayload>();
        FileDescriptor pipe = message.TakeDescriptor()!;
        bool isPossible = StateTransfer.MayBegin && payload.Direction <= 1 && payload.Phase == 0 && !RunsAny;
        StateTransfer? begun = null;
        string reason = $"direction {payload.Direction}, phase {payload.Phase}";
        try
        {
            byte[]? state = isPossible && payload.Direction == 0 ? _device.SaveState() : null;
            if (isPossible && (payload.Direction == 1 || state is not null))
            {
                _stateTransfer?.Dispose();
                _stateTransfer = null;
                begun = state is not null ? StateTransfer.Save(pipe, state) : StateTransfer.Load(pipe);
            }
        }
        catch (Exception e) when (e is ErrnoException or OutOfMemoryException)
        {
            reason = e.Message;     // a shortage of the host's
        }
        if (begun is null)
        {
            pipe.Dispose();
            s_log.Warn("{Device}: {Peer}: its state cannot be transferred ({Reason})", _device.ServedAs, _connection.Peer, reason);
        }
        _stateTransfer = begun ?? _stateTransfer;
        Reply(VhostUserRequest.SetDeviceStateFd, begun is null ? StateNoFd | StateError : StateNoFd);
    }

    private bool FinishStateTransfer()
    {
        using StateTransfer? transfer = _stateTransfer;
        _stateTransfer = null;
        if (transfer is null || !transfer.Wait(_options.Deadline))
            return false;
        // The rings may have been started meanwhile.
        return !transfer.IsLoad || (!RunsAny && _device.LoadState(transfer.Bytes));
    }

    private void GetSharedMemory()
    {
        byte[] reply = new byte[PayloadSize.ShmemConfig];
        Span<ulong> fields = MemoryMarshal.Cast<byte, ulong>(reply.AsSpan());
        // Not for a front-end that means crosvm's feature by this bit: it has other messages for shared memory.
        IReadOnlyList<ulong> sizes = Has(VhostUserProtocolFeatures.Shmem) ? _device.SharedMemorySizes : [];
        for (int i = 0; i < Math.Min(sizes.Count, 256); i++)
            fields[1 + i] = sizes[i];
        fields[0] = (ulong)sizes.Count(size => size != 0);
        Reply(VhostUserRequest.GetShmemConfig, reply);
    }
}
