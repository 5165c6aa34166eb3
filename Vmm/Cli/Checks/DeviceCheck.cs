using Vmm.Vhost.Native;

namespace Vmm.Cli.Checks;

/// <summary>The devices behind virtio: vhost in the kernel, and tap. Each serves one kind of device, so all are optional.</summary>
internal static class DeviceCheck
{
    private static readonly (string Path, string Module)[] s_devices =
    [
        ("/dev/vhost-net", "vhost_net"),
        ("/dev/vhost-vsock", "vhost_vsock"),
        ("/dev/vhost-scsi", "vhost_scsi"),
        ("/dev/net/tun", "tun"),
    ];

    /// <summary>Looks.</summary>
    public static IEnumerable<Finding> Run(HostView host)
    {
        foreach ((string path, string module) in s_devices)
            yield return Look(host, path, module);

        string[] vdpa = host.ListDevices("vhost-vdpa-");
        if (vdpa.Length == 0)
        {
            yield return Finding.MissingOptional("/dev/vhost-vdpa-*",
                "there is none: run modprobe vhost_vdpa and add a device (vdpa dev add, vdpa(8))");
        }
        foreach (string path in vdpa)
            yield return Look(host, path, "vhost_vdpa");
    }

    private static Finding Look(HostView host, string path, string module) => host.TryOpen(path) switch
    {
        0 => Finding.Ok(path, "can be opened"),
        Errnos.Eacces or Errnos.Eperm => Finding.MissingOptional(path, $"permission denied: let your user open it (chown or chmod {path})"),
        Errnos.Ebusy => Finding.MissingOptional(path, "in use by another process"),
        Errnos.Enoent or Errnos.Enodev or Errnos.Enxio => Finding.MissingOptional(path, $"there is none: run modprobe {module}"),
        int errno => Finding.MissingOptional(path, new ErrnoException($"open({path})", errno).Message),
    };
}
