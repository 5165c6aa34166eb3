using NUnit.Framework;

namespace Vmm.Tests.Integration.Linux.Devices;

/// <summary>A test of a Linux guest whose devices the host's kernel works, or a daemon. It needs root, for taps, modules, configfs and virtiofsd.</summary>
public abstract class DeviceTest : LinuxTest
{
    /// <summary>Begins the SHA-256 of no bytes, which a guest without its data would tell too.</summary>
    private protected const string HashOfNothing = "e3b0c442";

    [OneTimeSetUp]
    public void LoadModules()
    {
        if (!Environment.IsPrivilegedProcess)
            Assert.Ignore("taps and kernel modules are root's: run as root, or in the emulated KVM host");
        HostCommand.Run("modprobe", "-a", "vhost_net", "vhost_vsock", "vhost_scsi", "tun");
    }

    /// <summary>A guest that runs <paramref name="script"/> on its console, with its virtio drivers loaded.</summary>
    private protected static LinuxGuest GuestWith(string script, params string[] options) => new()
    {
        Interactive = true,
        Options = [.. options, "--on-reboot", "exit"],
        Script = $"""
            stty -echo
            modprobe -a virtio_mmio virtio_net virtio_scsi virtio_blk sd_mod vmw_vsock_virtio_transport
            modprobe -aq ext4 virtiofs virtio-rng   # built into some kernels, or not asked for
            {script}
            """,
    };

    /// <summary>The rest of the last line of <paramref name="result"/>'s output that begins with <paramref name="key"/> and =.</summary>
    private protected static string ValueOf(VmmResult result, string key)
    {
        string? line = result.Output.Split('\n', '\r').LastOrDefault(line => line.StartsWith(key + "=", StringComparison.Ordinal));
        return line?[(key.Length + 1)..] ?? throw new AssertionException($"the guest did not say {key}=\n{result.Summary}");
    }
}
