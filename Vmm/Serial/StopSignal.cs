namespace Vmm.Serial;

/// <summary>Tells a thread that sits in poll(2) to come to an end, and how long it may take to deliver what it still has.</summary>
internal sealed class StopSignal(WakeUp wakeUp)
{
    /// <summary>How long queued output may take after the stop, in milliseconds.</summary>
    public const int Patience = 2000;

    private long _deadline;   // milliseconds of Environment.TickCount64; 0 while nobody asked for the stop

    /// <summary>Whether the stop was asked for.</summary>
    public bool IsSet => Volatile.Read(ref _deadline) != 0;

    /// <summary>For poll(2): milliseconds until patience ends (0: it ended), or -1 while there is no stop.</summary>
    public int Timeout
    {
        get
        {
            long deadline = Volatile.Read(ref _deadline);
            return deadline == 0 ? -1 : (int)Math.Clamp(deadline - Environment.TickCount64, 0, Patience);
        }
    }

    /// <summary>Asks for the stop and waits for <paramref name="thread"/> to end, but not for ever: it may be stuck in a write.</summary>
    /// <returns>Whether it ended. Null, a thread that was never started, counts as ended; the calling thread itself does not.</returns>
    public bool StopAndJoin(Thread? thread)
    {
        Interlocked.CompareExchange(ref _deadline, Environment.TickCount64 + Patience, 0);
        wakeUp.Signal();
        return thread is null || (thread != Thread.CurrentThread && thread.Join(Patience + (Patience / 4)));
    }
}
