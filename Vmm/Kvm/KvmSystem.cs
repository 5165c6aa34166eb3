using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Vmm.Vhost.Native;

namespace Vmm.Kvm;

/// <summary>/dev/kvm, found good: the source of CPUID and of virtual machines.</summary>
internal sealed class KvmSystem : KvmProbe
{
    private const int MaxCpuidEntries = 256;   // KVM_MAX_CPUID_ENTRIES

    private readonly int _runSize;

    /// <summary>Opens /dev/kvm.</summary>
    /// <exception cref="ErrnoException">It cannot be opened; the message says what to do.</exception>
    /// <exception cref="VmmException">It speaks another API version, or lacks a capability, which the message names.</exception>
    public KvmSystem()
        : base("/dev/kvm", "run vmm check to see what this host lacks")
    {
        try
        {
            int version = ApiVersion;
            if (version != RequiredApiVersion)
                throw new VmmException($"/dev/kvm speaks KVM API version {version}, not {RequiredApiVersion}: use a current Linux kernel");
            foreach (KvmCapability capability in KvmCapability.Required)
            {
                if (Check(capability) == 0)
                    throw new VmmException($"this host's KVM lacks {capability.Name}: use a current Linux kernel");
            }
            _runSize = Ioctl.Call(Device, KvmIoctls.GetVcpuMmapSize);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>The most vCPUs that a VM may have here.</summary>
    public int MaxVcpus => Math.Max(Check(KvmCapability.MaxVcpus), Check(KvmCapability.NrVcpus));

    /// <summary>Makes an empty VM.</summary>
    public KvmVm CreateVm() => new(new FileDescriptor(Ioctl.Call(Device, KvmIoctls.CreateVm)), _runSize);

    /// <summary>The CPUID entries that this host's KVM can give a guest.</summary>
    public KvmCpuidEntry2[] GetSupportedCpuid()
    {
        int head = Unsafe.SizeOf<KvmCpuid2>();
        byte[] buffer = new byte[head + MaxCpuidEntries * Unsafe.SizeOf<KvmCpuidEntry2>()];
        MemoryMarshal.AsRef<KvmCpuid2>(buffer.AsSpan()).Count = MaxCpuidEntries;
        Ioctl.Call(Device, KvmIoctls.GetSupportedCpuid, buffer.AsSpan());
        int count = (int)Math.Min(MemoryMarshal.AsRef<KvmCpuid2>(buffer.AsSpan()).Count, MaxCpuidEntries);
        return MemoryMarshal.Cast<byte, KvmCpuidEntry2>(buffer.AsSpan(head))[..count].ToArray();
    }
}
