using System.Diagnostics;
using NUnit.Framework;

namespace Vmm.Tests.Integration;

/// <summary>Ends of processes that a test started. A process that the kernel does not let go fails its test, with where it is, instead of
/// holding up the whole run.</summary>
internal static class ProcessExtensions
{
    /// <summary>Waits for the end of a process, which is <paramref name="name"/> in the message of the test that fails.</summary>
    public static void WaitForEnd(this Process process, string name)
    {
        if (!process.WaitForExit(VmmProcess.Deadline))
            throw new AssertionException($"{name} did not end\n{HangReport.Of(process.Id)}");
    }

    /// <summary>Kills a process if it still runs, and waits for its end.</summary>
    public static void KillAndWait(this Process process, string name)
    {
        if (!process.HasExited)
            process.Kill();
        process.WaitForEnd(name);
    }
}
