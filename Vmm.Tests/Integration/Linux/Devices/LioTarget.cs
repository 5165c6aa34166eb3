namespace Vmm.Tests.Integration.Linux.Devices;

/// <summary>A target of the host's kernel for vhost-scsi, its only LUN a file (docs/scsi.md); gone when disposed.</summary>
internal sealed class LioTarget : IDisposable
{
    private const string Target = "/sys/kernel/config/target";

    private readonly string _backstore;
    private readonly string _port;

    public LioTarget(int number, string file, long size)
    {
        Wwpn = $"naa.500140500000{number:x4}";
        string nexus = $"naa.500140510000{number:x4}";
        HostCommand.Run("modprobe", "-a", "target_core_mod", "target_core_file", "vhost_scsi");
        if (!Directory.Exists(Target))
            HostCommand.Run("mount", "-t", "configfs", "configfs", "/sys/kernel/config");
        Directory.CreateDirectory("/etc/target");
        using (FileStream image = File.Create(file))
            image.SetLength(size);

        _backstore = $"{Target}/core/fileio_{number}/lun";
        Directory.CreateDirectory(_backstore);
        File.WriteAllText($"{_backstore}/control", $"fd_dev_name={file},fd_dev_size={size}");
        File.WriteAllText($"{_backstore}/enable", "1");
        _port = $"{Target}/vhost/{Wwpn}";
        Directory.CreateDirectory($"{_port}/tpgt_1/lun/lun_0");
        File.CreateSymbolicLink($"{_port}/tpgt_1/lun/lun_0/disk", _backstore);
        File.WriteAllText($"{_port}/tpgt_1/nexus", nexus);
    }

    public string Wwpn { get; }

    public void Dispose()
    {
        File.Delete($"{_port}/tpgt_1/lun/lun_0/disk");
        File.WriteAllText($"{_port}/tpgt_1/nexus", "NULL");   // refused while there is a LUN
        foreach (string directory in new[] { $"{_port}/tpgt_1/lun/lun_0", $"{_port}/tpgt_1", _port, _backstore, Path.GetDirectoryName(_backstore)! })
            HostCommand.Run("rmdir", directory);
    }
}
