using Vmm.Vhost.Native;

namespace Vmm.Cli.Exec;

/// <summary>Tells the second SIGTERM, with which a user ends what does not end by the first one, from one that came twice: timeout(1) sends it to its child and then to the process
/// group, which has that child in it.</summary>
internal sealed class Terminations
{
    private const int SameOne = 500;        // milliseconds
    private const long None = long.MinValue;

    private long _first = None;

    /// <summary>Whether signal <paramref name="number"/> that came now is a second SIGTERM; from any thread.</summary>
    public bool IsSecond(int number) => IsSecond(number, Environment.TickCount64);

    /// <summary>Whether signal <paramref name="number"/> that came at <paramref name="now"/>, as <see cref="Environment.TickCount64"/> counts, is a second SIGTERM.</summary>
    internal bool IsSecond(int number, long now)
    {
        if (number != SignalNumber.Terminate)
            return false;
        long first = Interlocked.CompareExchange(ref _first, now, None);
        return first != None && now - first >= SameOne;
    }
}
