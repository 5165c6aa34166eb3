namespace Vmm.Tests.Integration.Linux.Devices;

/// <summary>A device of the kernel's vDPA simulator, bound to vhost-vdpa; gone when disposed.</summary>
internal sealed class VdpaSimulator : IDisposable
{
    /// <summary>In how many runs of neighbouring pages the memory of a guest may lie. The kernel's default, 2048, is met by small guests on a
    /// host that has run for a while, and by large ones. This one is met at once, and huge pages stay below it.</summary>
    private const int MaxRuns = 1000;

    private readonly string _name;

    /// <summary>Makes a device of <paramref name="kind"/>, "net" or "blk".</summary>
    public VdpaSimulator(string kind)
    {
        _name = $"vmtest-{kind}";
        string[] address = kind == "net" ? ["mac", "02:00:00:00:00:55"] : [];
        HostCommand.Run("vdpa", ["dev", "add", "name", _name, "mgmtdev", $"vdpasim_{kind}", .. address]);
        Path = "/dev/" + System.IO.Path.GetFileName(Directory.GetDirectories($"/sys/bus/vdpa/devices/{_name}", "vhost-vdpa-*").Single());
    }

    public string Path { get; }

    /// <summary>What vdpa(8) says of the device, the features that were agreed on among it.</summary>
    public string Show() => HostCommand.Run("vdpa", "dev", "config", "show", _name);

    /// <summary>Loads the simulator's modules: the host's own, or those that firmware/kvm-host/build-vdpa has built for this kernel.</summary>
    /// <returns>Why that cannot be, or null.</returns>
    public static string? Load()
    {
        if (Directory.Exists("/sys/module/vdpa_sim_blk")
            || HostCommand.TryRun("modprobe", "-a", "vhost_vdpa", "vdpa_sim_net", "vdpa_sim_blk").Status == 0)
        {
            return null;
        }
        string built = LinuxGuest.Artifact("vdpa", "release");
        string release = HostCommand.Run("uname", "-r").Trim();
        if (!File.Exists(built) || File.ReadAllText(built).Trim() != release)
            return $"kernel {release} has no vDPA simulator, and firmware/kvm-host/build-vdpa has built none for it";
        HostCommand.Run("modprobe", "-a", "irqbypass", "vhost_iotlb", "vhost");
        foreach (string module in File.ReadAllLines(LinuxGuest.Artifact("vdpa", "load")))
        {
            string[] limit = module is "vhost_vdpa" or "vdpa_sim" ? [$"max_iotlb_entries={MaxRuns}"] : [];
            HostCommand.Run("insmod", [LinuxGuest.Artifact("vdpa", $"{module}.ko"), .. limit]);
        }
        return null;
    }

    public void Dispose() => HostCommand.TryRun("vdpa", "dev", "del", _name);
}
