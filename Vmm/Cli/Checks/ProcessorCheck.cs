namespace Vmm.Cli.Checks;

/// <summary>Hardware virtualisation: Intel VT-x or AMD-V.</summary>
internal static class ProcessorCheck
{
    /// <summary>Looks.</summary>
    public static IEnumerable<Finding> Run(HostView host)
    {
        const string topic = "hardware virtualisation";
        foreach (string line in host.ReadText("/proc/cpuinfo").Split('\n'))
        {
            if (!line.StartsWith("flags", StringComparison.Ordinal))
                continue;
            string[] flags = line.Split(' ');
            if (flags.Contains("vmx"))
                return [Finding.Ok(topic, "Intel VT-x (vmx in /proc/cpuinfo)")];
            if (flags.Contains("svm"))
                return [Finding.Ok(topic, "AMD-V (svm in /proc/cpuinfo)")];
            break;   // the processors are alike
        }
        return [Finding.Missing(topic, "neither vmx nor svm in /proc/cpuinfo: Linux guests do not run here, even where /dev/kvm exists. Enable it "
            + "in the firmware or for this virtual machine, or use the software-emulated host: firmware/kvm-host/run -- COMMAND")];
    }
}
