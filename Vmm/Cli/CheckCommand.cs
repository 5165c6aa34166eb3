using Vmm.Cli.Checks;

namespace Vmm.Cli;

/// <summary><c>vmm check</c>: what this host offers, line by line.</summary>
internal static class CheckCommand
{
    private static readonly Func<HostView, IEnumerable<Finding>>[] s_checks =
        [KvmCheck.Run, ProcessorCheck.Run, KernelCheck.Run, KernelHoles.Run, MemoryCheck.Run, DeviceCheck.Run, LimitsCheck.Run, ConfinementCheck.Run];

    /// <summary>Looks at <paramref name="host"/> and writes what it finds to <paramref name="output"/>.</summary>
    /// <returns>Success where Linux guests can run, else Failure.</returns>
    public static int Run(HostView host, TextWriter output)
    {
        bool canRun = true;
        foreach (Func<HostView, IEnumerable<Finding>> check in s_checks)
        {
            foreach (Finding finding in check(host))
            {
                output.WriteLine(OneLine.Of(finding.ToString()));
                canRun &= finding.State != FindingState.Missing;
            }
        }
        output.WriteLine(canRun ? "Linux guests can run on this host." : "Linux guests cannot run on this host: see what is missing and not optional.");
        return canRun ? ExitCode.Success : ExitCode.Failure;
    }
}
