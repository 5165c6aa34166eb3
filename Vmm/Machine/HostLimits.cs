using Vmm.Kvm;

namespace Vmm.Machine;

/// <summary>What this host can give a machine at the most: checked before anything is made, for errors that name the option.</summary>
internal static class HostLimits
{
    private const ulong MaxSlotSize = ((1UL << 31) - 1) * 4096;   // KVM_MEM_MAX_NR_PAGES: a region is one memory slot
    private const uint AddressSizeLeaf = 0x8000_0008;             // CPUID: EAX[7:0] physical address bits
    private const int DefaultAddressBits = 36;                    // where the leaf is missing (Intel SDM vol. 3A §4.1.4)

    /// <summary>Refuses a machine that this host cannot run.</summary>
    /// <exception cref="VmmException">It cannot; the message names the option and the limit.</exception>
    public static void Check(MachineConfig config, KvmSystem kvm)
    {
        if (config.Cpus > kvm.MaxVcpus)
            throw new VmmException($"--cpus {config.Cpus}: this host's KVM runs at most {kvm.MaxVcpus} vCPUs in a VM");

        ulong addressEnd = AddressEnd(kvm);
        ulong limit = addressEnd - AddressMap.HighRamStart + AddressMap.LowRamEnd;
        limit = Math.Min(limit, AddressMap.LowRamEnd + MaxSlotSize);
        if (config.MemorySize > limit)
            throw new VmmException($"--memory: {config.MemorySize >> 20} MiB are more than a guest can address on this host: at most {limit >> 20} MiB");

        // Pages that are not there would not fail: they would call the kernel's out-of-memory killer.
        if (config.Memory is { Prefault: true, HugePageSize: 0 } && HostMemory.Read() is HostMemory host && config.MemorySize > host.Available)
            throw new VmmException($"--memory: prefault=on needs {config.MemorySize >> 20} MiB at once, and {host.Owner} has {host.Available >> 20} MiB available");
        if (config.Memory.HugePageSize != 0)
            HostHugePages.Require(config.Memory.HugePageSize);
        // A page beyond the limit is a SIGBUS, in the middle of the guest's work.
        if (config.Memory.HugePageSize is not 0 and ulong size && HostMemory.ReadHugePages(size) is { } huge && config.MemorySize > huge.Available)
        {
            throw new VmmException($"--memory: {huge.Owner} has {huge.Available >> 20} MiB left in huge pages of {HostHugePages.Name(size)}, and the guest "
                + $"needs {config.MemorySize >> 20} MiB: raise its hugetlb limit, or give the guest less memory");
        }
    }

    /// <summary>The first guest-physical address that no processor of this host can name.</summary>
    public static ulong AddressEnd(KvmSystem kvm) => 1UL << AddressBits(kvm.SupportedCpuid);

    private static int AddressBits(ReadOnlySpan<KvmCpuidEntry2> cpuid)
    {
        foreach (KvmCpuidEntry2 entry in cpuid)
        {
            if (entry.Function == AddressSizeLeaf)
                return Math.Clamp((int)(entry.Eax & 0xFF), DefaultAddressBits, 52);
        }
        return DefaultAddressBits;
    }
}
