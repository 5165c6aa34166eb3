using Vmm.Tests.Integration.Linux.Devices;

namespace Vmm.Tests.Integration.Linux;

/// <summary>The host that the tests run on.</summary>
internal static class LinuxHost
{
    /// <summary>Whether it is the emulated KVM host (firmware/kvm-host), where all is slow and nothing belongs to anybody.</summary>
    public static bool IsEmulated { get; } = Environment.GetEnvironmentVariable("KVM_HOST") == "1";

    /// <summary>What guests need on their kernel's command line here.</summary>
    /// <remarks>QEMU's emulation of SVM does not intercept XSETBV, so KVM never learns which state the guest has enabled and reports a
    /// size of 576 bytes for it. Linux says "XSAVE consistency problem", with a trace, and does without XSAVE: have it do so at
    /// once. Any other VMM's guests fare the same.</remarks>
    public static string GuestOptions => IsEmulated ? "noxsave" : "";

    /// <summary>Gives /dev/kvm to the group kvm, as udev does on other hosts. In the emulated one nobody has said yet whose it is.</summary>
    public static void GiveKvmToItsGroup()
    {
        if (IsEmulated)
            HostCommand.Run("sh", "-c", "chgrp kvm /dev/kvm && chmod 0660 /dev/kvm");
    }

    /// <summary>Why Linux guests do not run here, or null.</summary>
    public static string? WhyNoLinux()
    {
        if (!File.ReadLines("/proc/cpuinfo").Any(line => line.StartsWith("flags", StringComparison.Ordinal) && line.Split(' ').Any(flag => flag is "vmx" or "svm")))
            return "no hardware virtualisation here: run by ./test.sh, or in firmware/kvm-host/run";
        return KvmTest.WhyNoKvm();
    }
}
