using System.Diagnostics;
using NUnit.Framework;

namespace Vmm.Tests.Fakes;

/// <summary>Waits for what another thread brings about. The limit is for a failure, not a figure: nothing waits that long otherwise.</summary>
internal static class Eventually
{
    private static readonly TimeSpan s_limit = TimeSpan.FromSeconds(30);

    public static void True(Func<bool> condition, Func<string> otherwise)
    {
        for (long start = Stopwatch.GetTimestamp(); !condition(); Thread.Sleep(1))
        {
            if (Stopwatch.GetElapsedTime(start) > s_limit)
                Assert.Fail(otherwise());
        }
    }
}
