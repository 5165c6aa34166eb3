using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Vmm.Vhost.Native;

namespace Vmm.Kvm;

/// <summary>What <c>vmm check</c> asks of /dev/kvm.</summary>
internal interface IKvmProbe : IDisposable
{
    /// <summary>KVM_GET_API_VERSION: 12 on every kernel since 2.6.22 (Linux Documentation/virt/kvm/api.rst, 4.1).</summary>
    int ApiVersion { get; }

    /// <summary>KVM_CHECK_EXTENSION: 0 where there is no <paramref name="capability"/>, else 1 or its value (api.rst, 4.4).</summary>
    int Check(KvmCapability capability);

    /// <summary>Makes a VM with interrupt controllers and a vCPU, and destroys it again.</summary>
    /// <exception cref="ErrnoException">The host refuses one of them.</exception>
    void TryMachine();
}

/// <summary>/dev/kvm, opened, whatever it can do; <see cref="KvmSystem"/> is one that was found good.</summary>
internal sealed class KvmDevice : IKvmProbe
{
    /// <summary>The only version there is.</summary>
    public const int RequiredApiVersion = 12;

    private const int MaxCpuidEntries = 256;   // KVM_MAX_CPUID_ENTRIES

    private readonly FileDescriptor _device;

    /// <summary>Opens the device at <paramref name="path"/>.</summary>
    /// <param name="path">/dev/kvm, or another for tests.</param>
    /// <param name="advice">What the user can do if that fails.</param>
    /// <exception cref="ErrnoException">It cannot be opened.</exception>
    public KvmDevice(string path, string? advice = null) => _device = FileDescriptor.Open(path, OpenMode.ReadWrite, advice);

    /// <inheritdoc/>
    public int ApiVersion => Ioctl.Call(_device, KvmIoctls.GetApiVersion);

    /// <inheritdoc/>
    public int Check(KvmCapability capability) => Ioctl.Call(_device, KvmIoctls.CheckExtension, (nuint)capability.Number);

    /// <summary>Makes an empty VM.</summary>
    public KvmVm CreateVm() =>
        new(new FileDescriptor(Ioctl.Call(_device, KvmIoctls.CreateVm)), runSize: Ioctl.Call(_device, KvmIoctls.GetVcpuMmapSize));

    /// <summary>Says what the user can do where KVM refuses to make a VM or a part of it.</summary>
    /// <returns>One line: the failure, and the advice.</returns>
    public static string Explain(ErrnoException refusal) => refusal.Errno switch
    {
        Errnos.Ebusy => $"{refusal.Message}: another hypervisor uses the processor's virtualisation: stop it",
        Errnos.Emfile or Errnos.Enfile => refusal.Message,      // which says it already
        _ => $"{refusal.Message}: the kernel's log (dmesg) may say more",
    };

    /// <inheritdoc/>
    public void TryMachine()
    {
        using KvmVm vm = CreateVm();
        if (Check(KvmCapability.SplitIrqchip) != 0)
            vm.CreateLocalApics();
        else
            vm.CreatePcInterruptControllers();
        vm.CreateVcpu(0).Dispose();
    }

    /// <summary>The CPUID entries that this host's KVM can give a guest.</summary>
    public KvmCpuidEntry2[] GetSupportedCpuid()
    {
        int head = Unsafe.SizeOf<KvmCpuid2>();
        byte[] buffer = new byte[head + MaxCpuidEntries * Unsafe.SizeOf<KvmCpuidEntry2>()];
        MemoryMarshal.AsRef<KvmCpuid2>(buffer.AsSpan()).Count = MaxCpuidEntries;
        Ioctl.Call(_device, KvmIoctls.GetSupportedCpuid, buffer.AsSpan());
        int count = (int)Math.Min(MemoryMarshal.AsRef<KvmCpuid2>(buffer.AsSpan()).Count, MaxCpuidEntries);
        return MemoryMarshal.Cast<byte, KvmCpuidEntry2>(buffer.AsSpan(head))[..count].ToArray();
    }

    /// <inheritdoc/>
    public void Dispose() => _device.Dispose();
}
