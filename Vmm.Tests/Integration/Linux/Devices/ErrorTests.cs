using NUnit.Framework;

namespace Vmm.Tests.Integration.Linux.Devices;

/// <summary>What the host cannot give: one line that says what to do, before the guest boots.</summary>
public class ErrorTests : DeviceTest
{
    [Test]
    public void Net_ModuleNotLoaded_IsNamed()
    {
        HostTap tap = Keep(new HostTap(20));
        HostCommand.Run("modprobe", "-r", "vhost_net");
        try
        {
            AssertRefused(
                "--net: cannot open /dev/vhost-net: No such file or directory (errno 2): load the kernel's module: modprobe vhost_net",
                "--net", $"tap={tap.Name}");
        }
        finally
        {
            HostCommand.Run("modprobe", "vhost_net");
        }
    }

    [Test]
    public void Net_TapInUse_IsBusy()
    {
        HostTap tap = Keep(new HostTap(21));
        VmmProcess first = Boot(GuestWith("echo \"up\"; read -r end", "--net", $"tap={tap.Name}"));
        first.WaitForOutput("up");
        AssertRefused(
            $"--net: tap={tap.Name}: ioctl(TUNSETIFF): Device or resource busy (errno 16): another process uses it: give each guest a tap of its own",
            "--net", $"tap={tap.Name}");
        first.Send("end\n"u8);
        Assert.That(first.WaitForEnd().ExitCode, Is.Zero);
    }

    [Test]
    public void Net_SeveralQueuesOfATapWithOne_AreRefused()
    {
        HostTap tap = Keep(new HostTap(22));
        AssertRefused(
            $"--net: tap={tap.Name}: ioctl(TUNSETIFF): Invalid argument (errno 22): it is no tap, or one of a single queue: as root, "
            + $"ip link del {tap.Name}, and ip tuntap add {tap.Name} mode tap user $USER vnet_hdr multi_queue",
            "--net", $"tap={tap.Name},queues=2");
    }

    [Test]
    public void Net_InterfaceThatIsNoTap_IsRefused() => AssertRefused(
        "--net: tap=lo: ioctl(TUNSETIFF): Invalid argument (errno 22): it is an interface, but no tap: choose another name", "--net", "tap=lo");

    [Test]
    public void Net_DescriptorThatIsNoTap_IsRefused() => AssertRefused(
        "--net: fd=99 is no open tap or macvtap: ioctl(TUNGETIFF): Bad file descriptor (errno 9): let the caller open one and pass it on",
        "--net", "fd=99");

    [Test]
    public void Vdpa_NoDevice_IsRefused() => AssertRefused(
        "--vdpa path=/dev/vhost-vdpa-77: cannot open /dev/vhost-vdpa-77: No such file or directory (errno 2): load the kernel's module: "
        + "modprobe vhost_vdpa",
        "--vdpa", "path=/dev/vhost-vdpa-77");

    [Test]
    public void Vdpa_OtherDevice_IsRefused() => AssertRefused(
        "--vdpa path=/dev/null: /dev/null: ioctl(VHOST_GET_FEATURES): Inappropriate ioctl for device (errno 25): it is no vhost device",
        "--vdpa", "path=/dev/null");

    private void AssertRefused(string expected, params string[] options)
    {
        VmmResult result = Boot(GuestWith("", options)).WaitForEnd();
        Assert.That(result.Errors, Is.EqualTo($"vmm: {expected}\n"));
        Assert.That(result.Output, Is.Empty);
        Assert.That(result.ExitCode, Is.EqualTo(1));
    }
}
