using System.Runtime.InteropServices;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Vhost.User.Backend;

/// <content>Rings: what is said about them, and when they run.</content>
internal sealed partial class BackendSession
{
    private readonly List<RingLoop> _loops = [];

    private bool RunsAny => Array.Exists(_rings, ring => ring.Runner is not null);

    private bool IsPacked => (_features & VirtioFeatures.RingPacked) != 0;

    private RingSetup RingAt(uint index) =>
        index < (uint)_rings.Length
            ? _rings[index]
            : throw new RefusedException($"ring {index} is none of {_rings.Length}");

    // The ring of SET_VRING_KICK, CALL or ERR, and the descriptor that is its own from now on.
    private RingSetup RingOf(VhostUserMessage message, out EventFd? descriptor)
    {
        ulong value = message.Read<ulong>();
        bool hasNone = (value & VringDescriptor.NoFd) != 0;
        if ((value & ~(VringDescriptor.IndexMask | VringDescriptor.NoFd)) != 0)
            throw new ViolationException($"0x{value:x} has unknown flags");
        if (hasNone != (message.DescriptorCount == 0))
            throw new ViolationException($"0x{value:x} comes with {message.DescriptorCount} descriptors");
        RingSetup ring = RingAt((uint)(value & VringDescriptor.IndexMask));
        descriptor = hasNone ? null : Adopt(message.TakeDescriptor()!);
        return ring;
    }

    private static EventFd Adopt(FileDescriptor descriptor)
    {
        try
        {
            return EventFd.Adopt(descriptor);
        }
        catch (ErrnoException e)
        {
            throw new RefusedException(e.Message);
        }
    }

    private void SetSize(VringState state)
    {
        RingSetup ring = RingAt(state.Index);
        RequireStopped(ring);
        bool isPowerOfTwo = (state.Num & (state.Num - 1)) == 0;
        if (state.Num == 0 || state.Num > (uint)Math.Min(_device.MaxQueueSize, RingLayout.MaxSize)
            || (!isPowerOfTwo && _features is not null && !IsPacked))
        {
            throw new RefusedException($"ring {ring.Index} cannot have {state.Num} descriptors");
        }
        ring.Size = (int)state.Num;
    }

    private void SetAddress(VringAddress address)
    {
        if ((address.Flags & ~VringAddress.FlagLog) != 0)
            throw new ViolationException($"flags 0x{address.Flags:x} are unknown");
        if (address.Descriptor % 16 != 0 || address.Available % 2 != 0 || address.Used % 4 != 0)
            throw new ViolationException($"addresses 0x{address.Descriptor:x}, 0x{address.Available:x}, 0x{address.Used:x} are not aligned");
        RingSetup ring = RingAt(address.Index);
        _ = Locate(ring, in address);
        // A front-end that begins to migrate says this of rings that run.
        if (ring.Runner is not null)
            Pause(ring);
        ring.Address = address;
        if (ring.Runner is not null)
            Resume(ring);
        else
            TryStart(ring);
    }

    private void SetBase(VringState state)
    {
        RingSetup ring = RingAt(state.Index);
        RequireStopped(ring);
        if (_features is not null && !IsPacked && state.Num > ushort.MaxValue)
            throw new RefusedException($"ring {ring.Index} cannot begin at 0x{state.Num:x}");
        ring.Base = state.Num;
    }

    private void GetBase(VhostUserRequest request, VringState state, bool mayLeave)
    {
        RingSetup ring = RingAt(state.Index);
        Stop(ring, mayLeave);
        // If no request is left, the log of the ring is emptied: the ring may begin somewhere else next time, as after a reset. A ring that never ran here keeps its log: its
        // requests are a predecessor's, and for the next back-end.
        if (!ring.HasLeft && ring.StoppedAt is not null)
            _inflight?.Forget(ring.Index, IsPacked);
        ring.IsStarted = ring.IsToBePolled = false;
        ring.SetKick(null);
        var reply = new VringState(state.Index, ring.Base);
        Reply(request, MemoryMarshal.AsBytes(new ReadOnlySpan<VringState>(in reply)));
    }

    private void SetKick(VhostUserMessage message)
    {
        RingSetup ring = RingOf(message, out EventFd? kick);
        ring.SetKick(kick);
        ring.IsStarted = true;
        ring.IsToBePolled = kick is null;
        if (ring.Runner is not RingRunner runner)
        {
            TryStart(ring);
            return;
        }
        // A kick by the old descriptor may not have been seen.
        ring.Loop!.Invoke(() =>
        {
            runner.IsPolled = IsPolled(ring);
            runner.Kicked();
        });
    }

    // A kick by message; the first one starts the ring, as SET_VRING_KICK does.
    private void KickInband(VringState state)
    {
        RingSetup ring = RingAt(state.Index);
        ring.IsStarted = true;
        TryStart(ring);
        if (ring.Runner is not RingRunner runner)
            return;
        // Waits for the work: a front-end that asks for a reply gets it after that (vhost-user.rst, "In-band notifications").
        ring.Loop!.Invoke(() =>
        {
            runner.Kicked();
            runner.Work();
        });
    }

    private void SetEnabled(VringState state)
    {
        if (state.Num > 1)
            throw new ViolationException($"{state.Num} is neither 0 nor 1");
        // Some front-ends send SET_VRING_ENABLE before SET_FEATURES. So the check has to wait until the features are known.
        if (_features is ulong features && (features & VirtioFeatures.VhostUserProtocolFeatures) == 0)
            throw new ViolationException("VHOST_USER_F_PROTOCOL_FEATURES was not accepted");
        RingSetup ring = RingAt(state.Index);
        ring.IsEnabled = state.Num == 1;
        if (ring.IsEnabled)
            TryStart(ring);
        else
            Stop(ring, mayLeave: Has(VhostUserProtocolFeatures.GetVringBaseInflight));   // another front-end may save the guest now, without the in-flight log: its requests must be done
    }

    private static void RequireStopped(RingSetup ring)
    {
        if (ring.Runner is not null)
            throw new RefusedException($"ring {ring.Index} runs");
    }

    // Without a descriptor and without messages in its place, the ring is looked at now and then; also where the front-end has said that there is none.
    private bool IsPolled(RingSetup ring) => ring.Kick is null && (ring.IsToBePolled || !Has(VhostUserProtocolFeatures.InbandNotifications));

    private void TryStart(RingSetup ring)
    {
        if (ring.Runner is not null || !ring.IsStarted || !ring.IsEnabled || ring.Size == 0 || ring.Address is null || _features is not ulong features)
            return;
        RingRunner runner = MakeRunner(ring, features);
        try
        {
            ring.Loop ??= LoopFor(ring);
            ring.Loop.Invoke(() => ring.Loop.Add(runner));
        }
        catch (Exception e)
        {
            runner.Close();
            if (e is ErrnoException)   // there is no thread to be had
                throw DoesNotStart(ring.Index, e);
            throw;
        }
        ring.Runner = runner;
    }

    private RingRunner MakeRunner(RingSetup ring, ulong features, bool takesLeftOnly = false)
    {
        uint start = FirstPosition(ring);
        VirtQueue queue = Open(ring, start);
        var running = new BackendRing(_device, ring.Index, features, queue)
        {
            Kick = ring.Kick,
            Call = ring.Call,
            Error = ring.Error,
            IsInband = Has(VhostUserProtocolFeatures.InbandNotifications),
            HasNewDriver = ring.StoppedAt is uint stopped && stopped != start,
            IsContinued = queue.HasPredecessor || !IsBeginning(start),
            TakesLeftOnly = takesLeftOnly,
        };
        IRingHandler handler = StartHandler(running);
        return new RingRunner(running, handler) { IsPolled = IsPolled(ring) };
    }

    private IRingHandler StartHandler(BackendRing ring)
    {
        try
        {
            return _device.StartRing(ring) ?? throw new InvalidOperationException($"StartRing gave no handler for ring {ring.Index}");
        }
        catch (Exception e) when (e is VhostException or ErrnoException)
        {
            // An image that somebody else has, or a shortage of the host's.
            throw DoesNotStart(ring.Index, e);
        }
    }

    private static RefusedException DoesNotStart(int ring, Exception e) => new($"ring {ring} does not start: {e.Message}", isDevices: true);

    // A packed ring has two positions: that of the next available request, and that of the next used one. DPDK's front-end gives the first
    // only, and zeros for the second. Nothing is in flight then, or the in-flight log tells the second: so the second is the first. libkrun
    // gives 0 for the beginning.
    private uint FirstPosition(RingSetup ring)
    {
        if (!IsPacked || ring.Base > ushort.MaxValue)
            return ring.Base;
        try
        {
            uint first = ring.Base == 0 && !PackedVirtqueue.HasBeenGoneAround(_memory.AddressSpace, Locate(ring, ring.Address!.Value)) ? PackedVirtqueue.Beginning : ring.Base;
            return first | (first << 16);
        }
        catch (VirtqueueException e)
        {
            throw new RefusedException(e.Message);
        }
    }

    // Of a packed ring: the place of the next request.
    private bool IsBeginning(uint position) => (ushort)position == (IsPacked ? PackedVirtqueue.Beginning : 0);

    private void Stop(RingSetup ring, bool mayLeave)
    {
        if (ring.Runner is not RingRunner runner)
        {
            if (!mayLeave)
                FinishLeft(ring);
            return;
        }
        ring.Runner = null;
        ring.Loop!.Invoke(() =>
        {
            runner.Pause(mayLeave && runner.Ring.Queue.IsTracked);
            ring.Loop.Remove(runner);
            runner.Close();
        });
        NoteStop(ring, runner);
        SuspendChannel();
    }

    // Does what a ring left in the in-flight log when it was disabled, and takes nothing new. What a ring left at GET_VRING_BASE stays there: the front-end wanted that.
    private void FinishLeft(RingSetup ring)
    {
        if (ring.Runner is not null || !ring.IsStarted || !ring.HasLeft || _features is not ulong features)
            return;
        RingRunner runner;
        try
        {
            runner = MakeRunner(ring, features, takesLeftOnly: true);
        }
        catch (RefusedException e)
        {
            // Such as for memory that is gone.
            s_log.Warn("{Device}: {Peer}: {Reason}: what ring {Ring} has in flight stays in the log", _device.ServedAs, _connection.Peer, e.Message, ring.Index);
            return;
        }
        ring.Loop!.Invoke(() =>
        {
            runner.Pause(mayLeave: false);
            runner.Close();
        });
        NoteStop(ring, runner);
    }

    // A predecessor's requests that were not taken again count as left, too: they are behind the base, and only the in-flight log has them.
    private static void NoteStop(RingSetup ring, RingRunner runner)
    {
        VirtQueue queue = runner.Ring.Queue;
        ring.StoppedAt = ring.Base = queue.Base;
        ring.HasLeft = queue.Taken + queue.Left > 0;
    }

    private void StopAll()
    {
        foreach (RingSetup ring in _rings)
            Stop(ring, mayLeave: false);
    }

    private void ResetRings()
    {
        foreach (RingSetup ring in _rings)
        {
            Stop(ring, mayLeave: false);
            ring.IsStarted = false;
        }
        DisableRings();
    }

    // Not for a front-end without SET_VRING_ENABLE, which could not enable them again.
    private void DisableRings()
    {
        if ((_features & VirtioFeatures.VhostUserProtocolFeatures) == 0)
            return;
        foreach (RingSetup ring in _rings)
        {
            Stop(ring, mayLeave: false);
            ring.IsEnabled = false;
        }
    }

    // Starts the rings that were set up before and could not run until now. A ring for which the front-end has yet to say something waits on. If the device refuses a
    // ring, the front-end is told by an error: nothing that it says later would start the ring.
    private void StartAll()
    {
        foreach (RingSetup ring in _rings)
        {
            try
            {
                TryStart(ring);
            }
            catch (RefusedException e) when (!e.IsDevices)
            {
                s_log.Warn("{Device}: {Peer}: {Reason}: the ring does not run", _device.ServedAs, _connection.Peer, e.Message);
            }
        }
    }

    // The ring goes on soon. A request that waits, for a lock for example, may stay in the in-flight log: the ring finds it there when it goes on. It may not stay where that log is replaced.
    private void Pause(RingSetup ring, bool mayLeave = true)
    {
        if (ring.Runner is RingRunner runner)
            ring.Loop!.Invoke(() => runner.Pause(mayLeave && runner.Ring.Queue.IsTracked));
        else if (!mayLeave)
            FinishLeft(ring);
    }

    private void PauseAll(bool mayLeave = true)
    {
        foreach (RingSetup ring in _rings)
            Pause(ring, mayLeave);
    }

    private void Resume(RingSetup ring)
    {
        if (ring.Runner is not RingRunner { IsPaused: true } runner)
            return;
        uint next = runner.Ring.Queue.Base;
        try
        {
            VirtQueue queue = Open(ring, next);
            ring.Loop!.Invoke(() => runner.Resume(queue));
        }
        catch (RefusedException e)
        {
            // Its memory is gone, and may come back.
            s_log.Warn("{Device}: {Peer}: {Reason}: the ring stops", _device.ServedAs, _connection.Peer, e.Message);
            ring.Runner = null;
            NoteStop(ring, runner);
            ring.Loop!.Invoke(() =>
            {
                ring.Loop.Remove(runner);
                runner.Close();
            });
            SuspendChannel();
        }
    }

    private void ResumeAll()
    {
        foreach (RingSetup ring in _rings)
            Resume(ring);
    }

    private VirtQueue Open(RingSetup ring, uint next)
    {
        VringAddress address = ring.Address!.Value;
        try
        {
            VirtQueue queue = VirtQueue.Create(_memory.AddressSpace, Locate(ring, in address) with { Base = next }, _features!.Value);
            if (_inflight?.TryTrack(queue, _features.Value) == false)
            {
                s_log.Warn("{Device}: {Peer}: ring {Ring} has no room in the {Inflight}: what it has in flight is lost if this process dies",
                    _device.ServedAs, _connection.Peer, ring.Index, _inflight);
            }
            if (_log is not null && (_features & VirtioFeatures.LogAll) != 0)
                queue.LogTo(_log, (address.Flags & VringAddress.FlagLog) != 0 ? address.Log : null);
            return queue;
        }
        catch (VirtqueueException e)
        {
            throw new RefusedException(e.Message);
        }
    }

    // Where the ring is for the guest. The whole of its areas is looked at when it is opened.
    private RingLayout Locate(RingSetup ring, in VringAddress address)
    {
        return new RingLayout
        {
            Index = ring.Index,
            Size = Math.Max(1, ring.Size),
            DescriptorArea = Translate(address.Descriptor),
            DriverArea = Translate(address.Available),
            DeviceArea = Translate(address.Used),
        };

        GuestAddress Translate(ulong user) =>
            _memory.TryTranslate(user, 1, out GuestAddress guest)
                ? guest
                : throw new RefusedException($"ring {ring.Index}: address 0x{user:x} is in no memory region");
    }

    private RingLoop LoopFor(RingSetup ring)
    {
        if (_options.SharesThread && _loops.Count > 0)
            return _loops[0];
        var loop = new RingLoop(
            _options.SharesThread ? $"{_device.ServedAs} rings" : $"{_device.ServedAs} ring {ring.Index}", _device, _options.PollInterval);
        _loops.Add(loop);
        return loop;
    }

    private void DisposeLoops()
    {
        foreach (RingLoop loop in _loops)
            loop.Dispose();
        _loops.Clear();
    }
}
