using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Vhost.User.Backend;

/// <summary>What a front-end has said about a ring, whether it runs or not.</summary>
internal sealed class RingSetup(int index) : IDisposable
{
    public int Index { get; } = index;

    /// <summary>Descriptors; 0 as long as it was not said.</summary>
    public int Size { get; set; }

    /// <summary>Where it is, in the front-end's addresses; null as long as it was not said.</summary>
    public VringAddress? Address { get; set; }

    /// <summary>Where to begin.</summary>
    public uint Base { get; set; }

    public EventFd? Kick { get; private set; }

    public EventFd? Call { get; private set; }

    public EventFd? Error { get; private set; }

    /// <summary>Between SET_VRING_KICK and GET_VRING_BASE (vhost-user.rst, "Ring states").</summary>
    public bool IsStarted { get; set; }

    public bool IsEnabled { get; set; }

    /// <summary>SET_VRING_KICK came without a descriptor.</summary>
    public bool IsToBePolled { get; set; }

    /// <summary>Whether requests were in flight when it was stopped last, or left by a predecessor and not taken again: they are to be found in the
    /// in-flight log.</summary>
    public bool HasLeft { get; set; }

    /// <summary>Where it stood when it was stopped last; null as long as it never ran.</summary>
    public uint? StoppedAt { get; set; }

    /// <summary>What works it; null as long as it does not run.</summary>
    public RingRunner? Runner { get; set; }

    /// <summary>The thread on which it runs; there from its first start on.</summary>
    public RingLoop? Loop { get; set; }

    public void SetKick(EventFd? kick)
    {
        EventFd? old = Kick;
        Kick = kick;
        HandOver(old, ring => ring.Kick = kick);
    }

    public void SetCall(EventFd? call)
    {
        EventFd? old = Call;
        Call = call;
        HandOver(old, ring =>
        {
            ring.Call = call;
            // The driver may not have heard of what the old one told. Without a descriptor there is none that anybody begins to wait for.
            if (call is not null)
                ring.CallDriver();
        });
    }

    public void SetError(EventFd? error)
    {
        EventFd? old = Error;
        Error = error;
        HandOver(old, ring => ring.Error = error);
    }

    public void Dispose()
    {
        Kick?.Dispose();
        Call?.Dispose();
        Error?.Dispose();
    }

    // A ring that runs uses the old descriptor until its thread has taken the new one.
    private void HandOver(EventFd? old, Action<BackendRing> take)
    {
        using (old)
        {
            if (Runner is RingRunner runner)
                Loop!.Invoke(() => take(runner.Ring));
        }
    }
}
