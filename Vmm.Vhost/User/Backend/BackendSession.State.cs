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
        bool isPossible = StateTransfer.MayBegin && payload.Direction <= 1 && payload.Phase == 0 && Array.TrueForAll(_rings, ring => ring.Runner is null);
        byte[]? state = isPossible && payload.Direction == 0 ? _device.SaveState() : null;
        if (!isPossible || (payload.Direction == 0 && state is null))
        {
            pipe.Dispose();
            s_log.Warn("{Device}: {Peer}: its state cannot be transferred (direction {Direction}, phase {Phase})",
                _device.ServedAs, _connection.Peer, payload.Direction, payload.Phase);
            Reply(VhostUserRequest.SetDeviceStateFd, StateNoFd | StateError);
            return;
        }
        _stateTransfer?.Dispose();
        _stateTransfer = state is not null ? StateTransfer.Save(pipe, state) : StateTransfer.Load(pipe);
        Reply(VhostUserRequest.SetDeviceStateFd, StateNoFd);
    }

    private bool FinishStateTransfer()
    {
        using StateTransfer? transfer = _stateTransfer;
        _stateTransfer = null;
        if (transfer is null || !transfer.Wait(_options.Deadline))
            return false;
        return !transfer.IsLoad || _device.LoadState(transfer.Bytes);
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
