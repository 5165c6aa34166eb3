namespace Vmm.Tests.Integration.Linux.Devices;

/// <summary>A target of the host's kernel for vhost-scsi, its LUNs files (docs/scsi.md); gone when disposed.</summary>
internal sealed class LioTarget : IDisposable
{
    private const string Target = "/sys/kernel/config/target";

    private readonly string _core;
    private readonly string _portal;
    private readonly List<string> _disks = [];

    public LioTarget(int number, string file, long size)
    {
        Wwpn = $"naa.500140500000{number:x4}";
        HostCommand.Run("modprobe", "-a", "target_core_mod", "target_core_file", "vhost_scsi");
        if (!Directory.Exists(Target))
            HostCommand.Run("mount", "-t", "configfs", "configfs", "/sys/kernel/config");
        Directory.CreateDirectory("/etc/target");
        _core = $"{Target}/core/fileio_{number}";
        _portal = $"{Target}/vhost/{Wwpn}/tpgt_1";
        AddDisk(file, size);
        File.WriteAllText($"{_portal}/nexus", $"naa.500140510000{number:x4}");
    }

    public string Wwpn { get; }

    /// <summary>Gives the target one more LUN, a file of zeros.</summary>
    public void AddDisk(string file, long size)
    {
        using (FileStream image = File.Create(file))
            image.SetLength(size);
        string disk = $"disk{_disks.Count}";
        Directory.CreateDirectory($"{_core}/{disk}");
        File.WriteAllText($"{_core}/{disk}/control", $"fd_dev_name={file},fd_dev_size={size}");
        File.WriteAllText($"{_core}/{disk}/enable", "1");
        Directory.CreateDirectory($"{_portal}/lun/lun_{_disks.Count}");
        File.CreateSymbolicLink($"{_portal}/lun/lun_{_disks.Count}/{disk}", $"{_core}/{disk}");
        _disks.Add(disk);
    }

    public void Dispose()
    {
        for (int i = 0; i < _disks.Count; i++)
            File.Delete($"{_portal}/lun/lun_{i}/{_disks[i]}");
        File.WriteAllText($"{_portal}/nexus", "NULL");   // refused while there is a LUN
        string[] directories =
        [
            .. _disks.Select((_, i) => $"{_portal}/lun/lun_{i}"), _portal, Path.GetDirectoryName(_portal)!,
            .. _disks.Select(disk => $"{_core}/{disk}"), _core,
        ];
        HostCommand.Run("rmdir", directories);
    }
}
