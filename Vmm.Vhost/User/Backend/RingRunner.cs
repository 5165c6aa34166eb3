using Vmm.Vhost.Native;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Vhost.User.Backend;

/// <summary>A ring, its handler, and whether it has something to do. On the thread of its <see cref="RingLoop"/>.</summary>
internal sealed class RingRunner(BackendRing ring, IRingHandler handler)
{
    /// <summary>A wait's limit: that of rings that are looked at now and then.</summary>
    public const int Poll = -2;

    private static readonly BoundedLog s_log = new("Vmm.Vhost.User.Backend");

    private bool _hasWork = true;   // whatever was kicked before it started
    private bool _isNew = true;
    private bool _isDrained;        // after it has failed
    private volatile bool _isPaused;

    public BackendRing Ring => ring;

    /// <summary>Between <see cref="Pause"/> and <see cref="Resume"/>.</summary>
    public bool IsPaused => _isPaused;

    /// <summary>There are no kicks: the ring is looked at now and then.</summary>
    public bool IsPolled { get; set; }

    /// <summary>A kick came by another way than its descriptor.</summary>
    public void Kicked() => _hasWork = true;

    /// <summary>Has the handler work, if there is a reason to.</summary>
    public void Work()
    {
        if (_isPaused)
            return;
        if (ring.HasFailed)
        {
            DrainFailed();
            return;
        }
        if (!_hasWork)
            return;
        _hasWork = false;
        try
        {
            // A predecessor may have ended before it called for what it had completed.
            if (_isNew)
            {
                ring.Begin();
                ring.CallDriver();
            }
            _isNew = false;
            ring.Process(handler);
        }
        catch (Exception e)
        {
            Failed(e);
        }
    }

    /// <summary>Gets ready for a wait.</summary>
    /// <returns>How long it may take: 0, -1 without limit, or <see cref="Poll"/>.</returns>
    public int PrepareToWait(out FileDescriptor? kick, out FileDescriptor? ready)
    {
        kick = ready = null;
        if (_isPaused)
            return -1;
        try
        {
            if (!ring.HasFailed)
            {
                ready = handler.Ready;
                _hasWork |= ring.PrepareToWait(ready is not null);
            }
        }
        catch (Exception e)
        {
            Failed(e);
        }
        if (ring.HasFailed)
        {
            ready = null;
            return _isDrained ? -1 : 0;
        }
        kick = ring.Kick;
        return _hasWork ? 0 : IsPolled ? Poll : -1;
    }

    /// <summary>The wait for the ring's kick and for the handler's descriptor has ended.</summary>
    public void Woken(PollEvents kick, PollEvents ready)
    {
        if (ready == PollEvents.Invalid)
            ring.Fail("what its handler waits for is not open");
        if (kick != PollEvents.None)
        {
            try
            {
                if (ring.Kick?.Drain() == 0 && (kick & ~PollEvents.Readable) != 0)
                    ring.Fail("its kick descriptor is in error");
            }
            catch (ErrnoException e)
            {
                ring.Fail($"its kick descriptor is of no use: {e.Message}");
            }
        }
        _hasWork |= kick != PollEvents.None || ready != PollEvents.None || IsPolled;
    }

    /// <summary>Has the handler give all requests back, and stands still.</summary>
    public void Pause(bool mayLeave)
    {
        if (!mayLeave && !_isPaused)
            FinishPredecessors();
        _isPaused = true;
        ring.MayLeave = mayLeave;
        Drain();
        if (ring.InFlight > 0 && !mayLeave)
            s_log.Error("{Ring}: the device kept {Count} requests when it had to give them back", ring, ring.InFlight);
    }

    /// <summary>Goes on, with <paramref name="queue"/> in the place of what was there.</summary>
    public void Resume(VirtQueue queue)
    {
        ring.Replace(queue);
        ring.MayLeave = false;
        _isPaused = false;
        _hasWork = true;
    }

    /// <summary>The end, after <see cref="Pause"/>.</summary>
    public void Close()
    {
        try
        {
            handler.Dispose();
        }
        catch (Exception e)
        {
            Failed(e);
        }
        ring.End();
    }

    // Does the requests that a predecessor left in flight, before any other. They are behind the ring's base, so a successor without the in-flight log, as after a migration,
    // would never find them. A handler that takes some of them at a time gets the next when those are done. One that takes no more, such as one without data for the guest,
    // ends this.
    private void FinishPredecessors()
    {
        for (int left = int.MaxValue; !ring.HasFailed && ring.Queue.Left is > 0 and var now && now < left; left = now)
        {
            if (ring.InFlight > 0)
                Drain();
            _hasWork = true;
            Work();
        }
    }

    // The handler of a failed ring does not work any more. It must still end the requests that it has taken: other rings may wait for them.
    private void DrainFailed()
    {
        if (_isDrained)
            return;
        _isDrained = true;
        Drain();
    }

    private void Drain()
    {
        try
        {
            ring.Drain(handler);
            ring.Notify();
        }
        catch (Exception e)
        {
            Failed(e);
        }
    }

    private void Failed(Exception e)
    {
        s_log.Error(e, "{Ring}: {Error}", ring, e.Message);
        ring.Fail(e.Message);
    }
}
