using System.Runtime.InteropServices;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Vhost.User.Backend;

/// <summary>A front-end that is connected: takes its messages one after another, and answers them. What a message must look like is
/// checked here, by <see cref="MessageRule"/>; what it means in the other files of this class.</summary>
internal sealed partial class BackendSession : IDisposable
{
    /// <summary>The most bytes of configuration space: what a reply has room for.</summary>
    public const int MaxConfigSize = VhostUserHeader.MaxPayload - ConfigHeader.WireSize;

    private static readonly BoundedLog s_log = new("Vmm.Vhost.User.Backend");

    private readonly VhostUserConnection _connection;
    private readonly VhostUserDevice _device;
    private readonly VhostUserServerOptions _options;
    private readonly RingSetup[] _rings;
    private BackendMemory _memory = BackendMemory.Empty;
    private ulong? _features;
    private ulong? _told;           // the same, of which the device knows
    private VhostUserProtocolFeatures _protocolFeatures;
    private ulong _status;
    private bool _hasReplied;   // the message that is handled

    public BackendSession(VhostUserConnection connection, VhostUserDevice device, VhostUserServerOptions options)
    {
        _connection = connection;
        _device = device;
        _options = options;
        _rings = new RingSetup[device.RingCount];
        for (int i = 0; i < _rings.Length; i++)
            _rings[i] = new RingSetup(i);
    }

    /// <summary>Serves the front-end until it leaves, is thrown out, or <paramref name="stop"/> is signalled.</summary>
    public void Serve(FileDescriptor stop)
    {
        try
        {
            while (_connection.Receive(Timeout.InfiniteTimeSpan, _options.Deadline, stop) is VhostUserMessage message)
            {
                using (message)
                    Handle(message);
                ResumeChannel();
            }
        }
        catch (VhostUserException e) when (e.IsEnd)
        {
            s_log.Info("{Device}: {Reason}", _device.ServedAs, e.Message);
        }
        catch (VhostUserException e)
        {
            s_log.Warn("{Device}: {Reason}: the connection is closed", _device.ServedAs, e.Message);
        }
        catch (Exception e) when (e is ViolationException or RefusedException)
        {
            s_log.Warn("{Device}: {Peer}: {Reason}: the connection is closed", _device.ServedAs, _connection.Peer, e.Message);
        }
        catch (Exception e)
        {
            s_log.Error(e, "{Device}: {Peer}: {Reason}: the connection is closed", _device.ServedAs, _connection.Peer, e.Message);
        }
    }

    /// <summary>Stops all rings, and lets go of all that the front-end gave.</summary>
    public void Dispose()
    {
        _device.FrontEnd?.StopWaiting();   // a ring's thread may, and it is to stop
        foreach (RingSetup ring in _rings)
        {
            try
            {
                Stop(ring, mayLeave: true);
                ring.IsStarted = false;     // for good
            }
            catch (Exception e)
            {
                s_log.Error(e, "{Device}: ring {Ring} cannot be stopped: {Error}", _device.ServedAs, ring.Index, e.Message);
            }
        }
        DisposeLoops();
        CloseChannel();
        foreach (RingSetup ring in _rings)
            ring.Dispose();
        ReplaceMemory(BackendMemory.Empty);
        _log?.Dispose();
        _logEvent?.Dispose();
        ForgetKept();
        _inflight?.Dispose();
        _stateTransfer?.Dispose();
        _connection.Dispose();
        try
        {
            _device.FrontEndGone();
        }
        catch (Exception e)
        {
            s_log.Error(e, "{Device}: {Error}", _device.ServedAs, e.Message);
        }
    }

    private void Handle(VhostUserMessage message)
    {
        VhostUserHeader header = message.Header;
        var request = (VhostUserRequest)header.Request;
        MessageRule rule = Check(message, request);
        s_log.Debug("{Device}: {Request}", _device.ServedAs, request);
        bool needsReply = !rule.HasReply && (header.Flags & VhostUserFlags.NeedReply) != 0;
        try
        {
            Dispatch(request, message);
        }
        catch (RefusedException e) when (!rule.HasReply)
        {
            string refusal = $"{request}: {e.Message}";
            if (needsReply && Has(VhostUserProtocolFeatures.ReplyAck) && !_hasReplied)
            {
                s_log.Warn("{Device}: {Peer}: {Reason}: refused", _device.ServedAs, _connection.Peer, refusal);
                Reply(request, 1UL);
                return;
            }
            if (!e.IsHarmless)
                throw new RefusedException(refusal);
            s_log.Warn("{Device}: {Peer}: {Reason}: ignored", _device.ServedAs, _connection.Peer, refusal);
        }
        catch (Exception e) when (e is ViolationException or RefusedException)
        {
            throw new ViolationException($"{request}: {e.Message}");
        }
        // Looks only now, since this very message may have agreed on REPLY_ACK.
        if (needsReply && Has(VhostUserProtocolFeatures.ReplyAck) && !_hasReplied)
            Reply(request, 0UL);
    }

    private MessageRule Check(VhostUserMessage message, VhostUserRequest request)
    {
        VhostUserHeader header = message.Header;
        _hasReplied = false;
        if (MessageRule.Find(request) is not MessageRule rule)
            throw new ViolationException($"request {header.Request} is unknown");
        if ((header.Flags & ~(VhostUserFlags.VersionMask | VhostUserFlags.NeedReply)) != 0)
            throw new ViolationException($"{request} has flags 0x{(uint)header.Flags:x}");
        if (header.Size < (uint)rule.MinSize || header.Size > (uint)rule.MaxSize)
            throw new ViolationException($"{request} has {header.Size} bytes");
        if (message.DescriptorCount < rule.MinDescriptors || message.DescriptorCount > rule.MaxDescriptors)
            throw new ViolationException($"{request} comes with {message.DescriptorCount} descriptors");
        if (!Has(rule.Needs) && !(_meansCrosvmsShmem && request == VhostUserRequest.GetShmemConfig))
            throw new ViolationException($"{request} needs {rule.Needs}, which was not agreed on");
        return rule;
    }

    private bool Has(VhostUserProtocolFeatures features) => (_protocolFeatures & features) == features;

    private void Dispatch(VhostUserRequest request, VhostUserMessage message)
    {
        switch (request)
        {
            case VhostUserRequest.GetFeatures:
                Reply(request, OfferedFeatures);
                break;
            case VhostUserRequest.SetFeatures:
                SetFeatures(message.Read<ulong>());
                break;
            case VhostUserRequest.SetOwner:
                break;   // there is one front-end at a time anyway
            case VhostUserRequest.ResetOwner:
                DisableRings();
                break;
            case VhostUserRequest.SetMemTable:
                SetMemoryTable(message);
                break;
            case VhostUserRequest.SetVringNum:
                SetSize(message.Read<VringState>());
                break;
            case VhostUserRequest.SetVringAddr:
                SetAddress(message.Read<VringAddress>());
                break;
            case VhostUserRequest.SetVringBase:
                SetBase(message.Read<VringState>());
                break;
            case VhostUserRequest.GetVringBase:
                // A front-end that agreed on GET_VRING_BASE_SKIP_DRAIN sends that message where requests may be left in the in-flight log.
                GetBase(request, message.Read<VringState>(), mayLeave: Has(VhostUserProtocolFeatures.GetVringBaseInflight) && !Has(VhostUserProtocolFeatures.GetVringBaseSkipDrain));
                break;
            case VhostUserRequest.SetVringKick:
                SetKick(message);
                break;
            case VhostUserRequest.SetVringCall:
                RingOf(message, out EventFd? call).SetCall(call);
                break;
            case VhostUserRequest.SetVringErr:
                RingOf(message, out EventFd? error).SetError(error);
                break;
            case VhostUserRequest.GetProtocolFeatures:
                Reply(request, (ulong)OfferedProtocolFeatures);
                break;
            case VhostUserRequest.SetProtocolFeatures:
                SetProtocolFeatures((VhostUserProtocolFeatures)message.Read<ulong>());
                break;
            case VhostUserRequest.GetQueueNum:
                Reply(request, (ulong)(_rings.Length / _device.RingsPerQueue));
                break;
            case VhostUserRequest.SetVringEnable:
                SetEnabled(message.Read<VringState>());
                break;
            case VhostUserRequest.SetBackendReqFd:
                OpenChannel(message.TakeDescriptor()!);
                break;
            case VhostUserRequest.GetConfig:
                GetConfig(message);
                break;
            case VhostUserRequest.SetConfig:
                SetConfig(message);
                break;
            case VhostUserRequest.ResetDevice:
                ResetDevice();
                break;
            case VhostUserRequest.GetMaxMemSlots:
                Reply(request, (ulong)BackendMemory.MaxRegions);
                break;
            case VhostUserRequest.AddMemReg:
                AddRegion(message);
                break;
            case VhostUserRequest.RemMemReg:
                RemoveRegion(message.Read<SingleMemoryRegion>());
                break;
            case VhostUserRequest.SetStatus:
                SetStatus(message.Read<ulong>());
                break;
            case VhostUserRequest.GetStatus:
                Reply(request, _status);
                break;
            case VhostUserRequest.SendRarp:
                SendRarp(message);
                break;
            case VhostUserRequest.NetSetMtu:
                SetMtu(message.Read<ulong>());
                break;
            case VhostUserRequest.VringKick:
                KickInband(message.Read<VringState>());
                break;
            case VhostUserRequest.GetVringBaseSkipDrain:
                GetBase(request, message.Read<VringState>(), mayLeave: true);
                break;
            case VhostUserRequest.SetLogBase:
                SetLog(message);
                break;
            case VhostUserRequest.SetLogFd:
                SetLogEvent(message.TakeDescriptor()!);
                break;
            case VhostUserRequest.GetInflightFd:
                GetInflight(message);
                break;
            case VhostUserRequest.SetInflightFd:
                SetInflight(message);
                break;
            case VhostUserRequest.SetDeviceStateFd:
                BeginStateTransfer(message);
                break;
            case VhostUserRequest.CheckDeviceState:
                Reply(request, FinishStateTransfer() ? 0UL : 1UL);
                break;
            case VhostUserRequest.GetShmemConfig:
                GetSharedMemory();
                break;
            default:
                throw new ViolationException("this back-end does not know the message");
        }
    }

    private void Reply(VhostUserRequest request, ulong value) => Reply(request, MemoryMarshal.AsBytes(new ReadOnlySpan<ulong>(in value)));

    // The flags are exactly "reply" and the version: QEMU takes no others.
    private void Reply(VhostUserRequest request, ReadOnlySpan<byte> payload, ReadOnlySpan<FileDescriptor> descriptors = default)
    {
        _hasReplied = true;
        _connection.Send((uint)request, VhostUserFlags.Reply, payload, descriptors, _options.Deadline);
    }
}
