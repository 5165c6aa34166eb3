using Vmm.Vhost.Native;

namespace Vmm.Vhost.User.Backend;

/// <summary>What a device does with one ring, from its start to its stop. All of it is called on the ring's thread, one call at a time, and
/// may use the ring freely; whatever is completed by other threads has to come back here through <see cref="Ready"/>.</summary>
public interface IRingHandler : IDisposable
{
    /// <summary>What wakes the ring's thread besides the kick, whenever it is readable: an io_uring's eventfd, a tap, a socket, a timer. Null if
    /// there is nothing. It is asked for before every wait, so that a handler which cannot use what is there (no buffer in the ring to
    /// read a packet into) returns null for that time.</summary>
    FileDescriptor? Ready { get; }

    /// <summary>The ring was kicked, or <see cref="Ready"/> is readable, or the ring has just started or started again after
    /// <see cref="Drain"/>: works until there is nothing to do, and calls <see cref="BackendRing.Notify"/> for what was completed. It may come without
    /// a cause. Requests may be left in the ring while something else is waited for.</summary>
    void Process(BackendRing ring);

    /// <summary>The ring is being stopped, or its memory is about to change: when this returns, every request that was taken is completed, or
    /// put back as the latest (<see cref="BackendRing.PutBack"/>), and no buffer is touched any more. Where <see cref="BackendRing.MayLeave"/> is set, requests that would take long may be abandoned
    /// instead: they are taken again later, by this handler or by the next process. <see cref="Process"/> may follow, or Dispose, or another Drain: a ring
    /// that fails is drained at once, and again when it is stopped.</summary>
    void Drain(BackendRing ring);
}
