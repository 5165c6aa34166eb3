using NUnit.Framework;

namespace Vmm.Tests.Integration.Linux;

/// <summary>A Linux that may not use KVM's clock, or not the timer of its local APIC, finds others.</summary>
public class ClockTests : LinuxTest
{
    // The clock goes on while the guest sleeps, and only a tick wakes it up.
    private const string Script = """
        for word in $(cat /proc/cmdline); do
            case $word in tsc_early_khz=*) echo "$word" ;; esac
        done
        echo "clocksource=$(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
        echo "tick=$(grep -E '^ *(0|LOC):' /proc/interrupts)"
        read -r before _ < /proc/uptime
        sleep 1
        read -r after _ < /proc/uptime
        modprobe -a virtio_mmio virtio-rng
        echo "random=$(head -c 16 /dev/hwrng | wc -c)"
        echo "before=$before"
        echo "after=$after"

        """;

    [TestCaseSource(nameof(Kernels))]
    public void Boot_WithoutAClockOfKvms_HasAClockAndATick(string discovery, string commandLine)
    {
        VmmResult result = Run(new LinuxGuest { Script = Script, CommandLine = commandLine, Options = ["--virtio-discovery", discovery, "--rng", "src=/dev/urandom"] });

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(result.Output, Does.Contain(LinuxGuest.Ended(0)), result.Summary);
        Assert.That(Value("after") - Value("before"), Is.GreaterThanOrEqualTo(0.9), result.Summary);
        // Debian's kernels have no CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES.
        string random = discovery == "acpi" ? "random=16" : "random=0";
        Assert.That(result.Output, Does.Contain(random), $"the first device has its interrupt, also where Linux takes one for the RTC\n{result.Summary}");
        bool hasKvmClock = !commandLine.Contains("no-kvmclock", StringComparison.Ordinal) && commandLine != "nopv";
        Assert.That(result.Output.Contains("clocksource=kvm-clock", StringComparison.Ordinal), Is.EqualTo(hasKvmClock), result.Summary);
        Assert.That(result.Output.Contains("tsc_early_khz=", StringComparison.Ordinal), Is.EqualTo(!hasKvmClock), result.Summary);

        double Value(string name) =>
            double.Parse(result.Output.Split($"{name}=")[1].Split('\n')[0], System.Globalization.CultureInfo.InvariantCulture);
    }

    // VMM_TESTS=full has all.
    private static IEnumerable<object[]> Kernels() => IsFull
        ? from discovery in new[] { "acpi", "cmdline" }
          from words in new[]
          {
              "no-kvmclock", "nopv", "no-kvmclock tsc=reliable", "no-kvmclock clocksource=tsc", "no-kvmclock lpj=8000000", "nolapic_timer", "no-kvmclock nolapic_timer",
          }
          select new object[] { discovery, words }
        : [["acpi", "no-kvmclock tsc=reliable"], ["cmdline", "no-kvmclock tsc=reliable nolapic_timer"], ["acpi", "nolapic_timer"]];
}
