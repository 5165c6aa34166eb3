using System.Security.Cryptography;
using NUnit.Framework;
using Vmm.Guest;
using Vmm.Tests.Fakes;
using Vmm.Tests.Integration.Linux.Devices;

namespace Vmm.Tests.Integration.Linux;

/// <content>Which kernel boots, and its modules.</content>
public partial class ExecTests
{
    [Test]
    public void Exec_WithoutAKernel_TakesTheRunningOne()
    {
        RequireRunningKernel();
        VmmProcess process = StartHere("exec", "--cmdline", LinuxHost.GuestOptions, "--", "sh", "-c", "uname -r; modprobe -n virtio_rng && echo modules");
        process.EndInput();

        Assert.That(process.WaitForEnd(), Is.EqualTo(new VmmResult(0, $"{RunningRelease}\nmodules\n", "")));
    }

    // Without the processor's random numbers, which this kernel would trust, it has only those that vmm gives it.
    [Test]
    public void Exec_ReleaseAndVerbose_IsThatKernelWhichIsHeardAndHasTimeAndRandomNumbers()
    {
        RequireRunningKernel();
        VmmProcess process = StartHere("exec", "--kernel", RunningRelease, "--verbose", "--cmdline", $"{LinuxHost.GuestOptions} random.trust_cpu=off", "--", "sh", "-c",
            "dmesg | grep -c 'random: crng init done'; uname -r; date +%s; read -r line");
        process.WaitForOutput("\n", times: 3);
        DateTimeOffset now = DateTimeOffset.UtcNow;
        process.EndInput();
        VmmResult result = process.WaitForEnd();

        string[] lines = result.Output.Split('\n');
        Assert.That(lines[..2], Is.EqualTo(new[] { "1", RunningRelease }), result.Summary);
        Assert.That(DateTimeOffset.FromUnixTimeSeconds(long.Parse(lines[2], null)), Is.EqualTo(now).Within(TimeSpan.FromSeconds(5)));
        Assert.That(result.Errors, Does.Contain($"Linux version {RunningRelease} ").And.Match("(?m)^vmm: modules +[0-9.]+ ms$").And.Match("(?m)^vmm: command +[0-9.]+ ms$"));
    }

    // As make leaves one, without depmod.
    [Test]
    public void Exec_BuildTree_HasTheKernelAndItsModules()
    {
        string tree = Path.Combine(Scratch, "linux");
        HostCommand.Run("sh", "-c", $"""
            set -e
            release=$(cat {LinuxGuest.Artifact("kernels", "generic", "release")})
            from={LinuxGuest.Artifact("kernels", "generic", "root")}/lib/modules/$release
            mkdir -p {tree}/arch/x86/boot {tree}/include/config {tree}/drivers {tree}/fs {tree}/net
            cp {LinuxGuest.Artifact("kernels", "generic", "vmlinuz")} {tree}/arch/x86/boot/bzImage
            echo $release > {tree}/include/config/kernel.release
            cp -r $from/kernel/drivers/virtio {tree}/drivers/
            cp -r $from/kernel/fs/fuse $from/kernel/fs/overlayfs {tree}/fs/
            cp -r $from/kernel/net/vmw_vsock {tree}/net/
            cp $from/modules.builtin {tree}/
            cd {tree}
            find drivers fs net -name '*.ko' | sed 's/ko$/o/' > modules.order
            touch .config Makefile Kconfig
            """);

        VmmProcess process = StartHere("exec", "--kernel", tree, "--cmdline", LinuxHost.GuestOptions, "--", "sh", "-c", "uname -r; grep -c ^virtiofs /proc/modules");
        process.EndInput();

        Assert.That(process.WaitForEnd(), Is.EqualTo(new VmmResult(0, $"{File.ReadAllText(LinuxGuest.Artifact("kernels", "generic", "release")).Trim()}\n1\n", "")));
    }

    [Test]
    public void Exec_PackedModules_AreLoaded()
    {
        // Half of them packed in each way.
        string tree = Path.Combine(Scratch, "modules");
        HostCommand.Run("sh", "-c", $"""
            set -e
            PATH=$PATH:/sbin:/usr/sbin
            release=$(cat {LinuxGuest.Artifact("kernels", "generic", "release")})
            from={LinuxGuest.Artifact("kernels", "generic", "root")}/lib/modules/$release to={tree}/lib/modules/$release
            mkdir -p $to/kernel/drivers $to/kernel/fs $to/kernel/net
            cp $from/modules.builtin $from/modules.builtin.modinfo $from/modules.order $to/
            cp -r $from/kernel/drivers/virtio $to/kernel/drivers/
            cp -r $from/kernel/fs/fuse $from/kernel/fs/overlayfs $to/kernel/fs/
            cp -r $from/kernel/net/vmw_vsock $to/kernel/net/
            find $to/kernel/drivers $to/kernel/fs -name '*.ko' -exec xz --check=crc32 {"{}"} +
            find $to/kernel/net -name '*.ko' -exec zstd -q --rm {"{}"} +
            depmod -b {tree} $release
            """);
        string[] kernel = ["exec", "--kernel", LinuxGuest.Artifact("kernels", "generic", "vmlinuz"), "--modules", tree, "--cmdline", LinuxHost.GuestOptions];

        VmmProcess process = StartHere([.. kernel, "--log-level", "info", "--", "cut", "-d ", "-f1", "/proc/modules"]);
        process.EndInput();
        VmmResult result = process.WaitForEnd();

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(result.Output.Split('\n'), Is.SupersetOf(new[] { "virtio_mmio", "virtiofs", "overlay", "vmw_vsock_virtio_transport" }));
        Assert.That(result.Errors, Does.Match("vmm: modules +[0-9.]+ ms\n").And.Match("vmm: command +[0-9.]+ ms\n"));
    }

    [Test]
    public void Exec_KernelWithoutVsock_SpeaksByTheConsole()
    {
        string tree = Path.Combine(Scratch, "modules"), input = Path.Combine(Scratch, "input");
        HostCommand.Run("sh", "-c", $"""
            set -e
            PATH=$PATH:/sbin:/usr/sbin
            release=$(cat {LinuxGuest.Artifact("kernels", "cloud", "release")})
            from={LinuxGuest.Artifact("kernels", "cloud", "root")}/lib/modules/$release to={tree}/lib/modules/$release
            mkdir -p $to/kernel/drivers/char $to/kernel/fs
            cp $from/modules.builtin $from/modules.builtin.modinfo $from/modules.order $to/
            cp -r $from/kernel/drivers/virtio $to/kernel/drivers/
            cp $from/kernel/drivers/char/virtio_console.ko $to/kernel/drivers/char/
            cp -r $from/kernel/fs/fuse $from/kernel/fs/overlayfs $to/kernel/fs/
            depmod -b {tree} $release
            head -c 300000 /dev/urandom > {input}
            """);
        string[] kernel = ["exec", "--kernel", LinuxGuest.Artifact("kernels", "cloud", "vmlinuz"), "--modules", tree, "--cmdline", LinuxHost.GuestOptions];

        string name = $"test-{Guid.NewGuid():N}"[..20];
        VmmProcess process = StartHere(
            [.. kernel, "--name", name, "--bind-ro", Scratch, "--", "sh", "-c", $"grep -c vsock /proc/modules; sha256sum < {input}; tee /tmp/x | sha256sum; sha256sum < /tmp/x >&2; exit 7"]);
        process.Send(File.ReadAllBytes(input));
        Eventually.True(() => GuestDirectory.Places().Any(place => Directory.Exists(Path.Combine(place, name))), () => "there is no guest of that name");
        VmmResult attached = StartHere("exec", "--attach", name, "--", "true").WaitForEnd();
        Assert.That(attached.ExitCode, Is.EqualTo(125), attached.Summary);
        Assert.That(attached.Errors, Does.Match($"\\Avmm: --attach: the kernel of the guest called {name} has no vsock[^\n]*\n\\z"));
        process.EndInput();

        string sum = $"{Convert.ToHexStringLower(SHA256.HashData(File.ReadAllBytes(input)))}  -\n";
        Assert.That(process.WaitForEnd(), Is.EqualTo(new VmmResult(7, $"0\n{sum}{sum}", sum)));
    }

    [Test]
    public void Exec_KernelWithoutModules_IsToldWhatIsMissing()
    {
        string image = Path.Combine(Scratch, "vmlinuz");
        File.Copy(LinuxGuest.Artifact("kernels", "generic", "vmlinuz"), image);
        string release = File.ReadAllText(LinuxGuest.Artifact("kernels", "generic", "release")).Trim();
        if (Directory.Exists($"/lib/modules/{release}"))
            Assert.Ignore($"this host has modules of kernel {release}");

        VmmProcess process = StartHere("exec", "--kernel", image, "--cmdline", LinuxHost.GuestOptions, "--quiet", "--", "true");
        process.EndInput();
        VmmResult result = process.WaitForEnd();

        Assert.That(result.ExitCode, Is.EqualTo(125), result.Summary);
        Assert.That(result.Errors, Does.Match($"\\Avmm: the guest could not be set up: cannot mount [^\n]*; no modules of kernel {release} are on this host: [^\n]*CONFIG_VIRTIO_FS[^\n]*\n\\z"));
    }

    [Category("Full")]
    [TestCase("generic")]
    [TestCase("rt")]
    [TestCase("backport")]      // Linux 6.12, whose modules are packed by xz
    public void Exec_OtherKernel_RunsTheCommand(string flavour)
    {
        string root = LinuxGuest.Artifact("kernels", flavour);
        if (!Directory.Exists(root))
            Assert.Ignore($"the {flavour} kernel is missing: scripts/setup full");
        string bound = Directory.CreateDirectory(Path.Combine(Scratch, "bound")).FullName;

        VmmProcess process = StartHere("exec", "--kernel", Path.Combine(root, "vmlinuz"), "--modules", Path.Combine(root, "root"), "--cmdline", LinuxHost.GuestOptions,
            "--bind", bound, "--net", "user", "--", "sh", "-c", $"uname -r; echo x > {bound}/x; touch /etc/written; cat /sys/class/net/eth0/operstate; exit 3");
        process.EndInput();

        Assert.That(process.WaitForEnd(), Is.EqualTo(new VmmResult(3, $"{File.ReadAllText(Path.Combine(root, "release")).Trim()}\nup\n", "")));
        Assert.That(File.Exists(Path.Combine(bound, "x")), Is.True);
    }
}
