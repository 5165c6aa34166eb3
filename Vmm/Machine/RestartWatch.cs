namespace Vmm.Machine;

/// <summary>Finds out that a guest does nothing but reset: several resets within a short time of running, and meanwhile not a byte on
/// the serial port and no device started.</summary>
internal sealed class RestartWatch
{
    /// <summary>So many such resets end the run.</summary>
    public const int MaxResets = 5;

    private static readonly TimeSpan s_window = TimeSpan.FromSeconds(10);   // of the guest's own time

    private readonly Queue<TimeSpan> _resets = new(MaxResets);
    private TimeSpan _ran;
    private (long Output, long Starts) _done;

    /// <summary>The guest has reset.</summary>
    /// <param name="ran">How long it ran since its start.</param>
    /// <param name="done">How many bytes it has sent to the serial port in all, and how often its drivers have started a device.</param>
    /// <returns>Whether it will go on like this.</returns>
    public bool IsStuck(TimeSpan ran, (long Output, long Starts) done)
    {
        _ran += ran;
        if (done != _done)
            _resets.Clear();
        _done = done;
        _resets.Enqueue(_ran);
        while (_ran - _resets.Peek() > s_window)
            _resets.Dequeue();
        return _resets.Count >= MaxResets;
    }
}
