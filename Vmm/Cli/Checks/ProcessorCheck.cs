namespace Vmm.Cli.Checks;

/// <summary>Hardware virtualisation: Intel VT-x or AMD-V.</summary>
internal static class ProcessorCheck
{
    private const string Topic = "hardware virtualisation";

    /// <summary>Whether Linux guests run here. Without /proc/cpuinfo that is taken for granted.</summary>
    public static bool HasVirtualisation(HostView host) => Flags(host) is not string[] flags || flags.Contains("vmx") || flags.Contains("svm");

    /// <summary>Looks.</summary>
    public static IEnumerable<Finding> Run(HostView host)
    {
        if (Flags(host) is not string[] flags)
            return [Finding.MissingOptional(Topic, "cannot tell without /proc/cpuinfo")];
        return flags.Contains("vmx") ? [Finding.Ok(Topic, "Intel VT-x (vmx in /proc/cpuinfo)")]
            : flags.Contains("svm") ? [Finding.Ok(Topic, "AMD-V (svm in /proc/cpuinfo)")]
            : [Finding.Missing(Topic, "neither vmx nor svm in /proc/cpuinfo: Linux guests do not run here, even where /dev/kvm exists. Enable it "
                + "in the firmware or for this virtual machine, or use the software-emulated host (in a checkout of vmm's sources: firmware/kvm-host/run -- COMMAND)")];
    }

    // Of the first processor: they are alike.
    private static string[]? Flags(HostView host) => Array.Find(
        host.ReadText("/proc/cpuinfo").Split('\n'), line => line.StartsWith("flags", StringComparison.Ordinal))?.Split(' ');
}
