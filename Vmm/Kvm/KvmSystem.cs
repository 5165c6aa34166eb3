using Vmm.Vhost.Native;

namespace Vmm.Kvm;

/// <summary>/dev/kvm, found good: the source of CPUID and of virtual machines.</summary>
internal sealed class KvmSystem : IDisposable
{
    private readonly KvmDevice _device;
    private KvmCpuidEntry2[]? _cpuid;

    /// <summary>Opens /dev/kvm.</summary>
    /// <exception cref="ErrnoException">It cannot be opened; the message says what to do.</exception>
    /// <exception cref="VmmException">It speaks another API version, or lacks a capability, which the message names.</exception>
    public KvmSystem()
    {
        _device = new KvmDevice("/dev/kvm", "run vmm check to see what this host lacks");
        try
        {
            int version = _device.ApiVersion;
            if (version != KvmDevice.RequiredApiVersion)
                throw new VmmException($"/dev/kvm speaks KVM API version {version}, not {KvmDevice.RequiredApiVersion}: use a current Linux kernel");
            foreach (KvmCapability capability in KvmCapability.Required)
            {
                if (Check(capability) == 0)
                    throw new VmmException($"this host's KVM lacks {capability.Name}: use a current Linux kernel");
            }
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>The most vCPUs that a VM may have here.</summary>
    public int MaxVcpus => Math.Max(Check(KvmCapability.MaxVcpus), Check(KvmCapability.NrVcpus));

    /// <inheritdoc cref="KvmDevice.Check"/>
    public int Check(KvmCapability capability) => _device.Check(capability);

    /// <inheritdoc cref="KvmDevice.CreateVm"/>
    public KvmVm CreateVm() => _device.CreateVm();

    /// <summary>The CPUID entries that this host's KVM can give a guest. They are asked for once: KVM takes a good part of a millisecond to make
    /// them. What they list depends on the permissions of the process (<see cref="Cpu.AmxPermission"/>), so these come first.</summary>
    public ReadOnlySpan<KvmCpuidEntry2> SupportedCpuid => _cpuid ??= _device.GetSupportedCpuid();

    /// <inheritdoc/>
    public void Dispose() => _device.Dispose();
}
