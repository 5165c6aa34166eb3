using Vmm.Vhost.Native;

namespace Vmm.Kvm;

/// <summary>The ioctl requests of linux/kvm.h that this VMM uses.</summary>
internal static class KvmIoctls
{
    private const byte Kvmio = 0xAE;

    // on /dev/kvm
    public static readonly IoctlRequest GetApiVersion = IoctlRequest.Io(Kvmio, 0x00, "KVM_GET_API_VERSION");
    public static readonly IoctlRequest CreateVm = IoctlRequest.Io(Kvmio, 0x01, "KVM_CREATE_VM");
    public static readonly IoctlRequest CheckExtension = IoctlRequest.Io(Kvmio, 0x03, "KVM_CHECK_EXTENSION");
    public static readonly IoctlRequest GetVcpuMmapSize = IoctlRequest.Io(Kvmio, 0x04, "KVM_GET_VCPU_MMAP_SIZE");
    public static readonly IoctlRequest GetSupportedCpuid = IoctlRequest.Iowr<KvmCpuid2>(Kvmio, 0x05, "KVM_GET_SUPPORTED_CPUID");

    // on a VM
    public static readonly IoctlRequest CreateVcpu = IoctlRequest.Io(Kvmio, 0x41, "KVM_CREATE_VCPU");
    public static readonly IoctlRequest SetUserMemoryRegion = IoctlRequest.Iow<KvmUserspaceMemoryRegion>(Kvmio, 0x46, "KVM_SET_USER_MEMORY_REGION");
    public static readonly IoctlRequest SetTssAddr = IoctlRequest.Io(Kvmio, 0x47, "KVM_SET_TSS_ADDR");
    public static readonly IoctlRequest SetIdentityMapAddr = IoctlRequest.Iow<ulong>(Kvmio, 0x48, "KVM_SET_IDENTITY_MAP_ADDR");
    public static readonly IoctlRequest CreateIrqchip = IoctlRequest.Io(Kvmio, 0x60, "KVM_CREATE_IRQCHIP");
    public static readonly IoctlRequest SetGsiRouting = IoctlRequest.Iow<KvmIrqRouting>(Kvmio, 0x6A, "KVM_SET_GSI_ROUTING");
    public static readonly IoctlRequest Irqfd = IoctlRequest.Iow<KvmIrqfd>(Kvmio, 0x76, "KVM_IRQFD");
    public static readonly IoctlRequest CreatePit2 = IoctlRequest.Iow<KvmPitConfig>(Kvmio, 0x77, "KVM_CREATE_PIT2");
    public static readonly IoctlRequest Ioeventfd = IoctlRequest.Iow<KvmIoeventfd>(Kvmio, 0x79, "KVM_IOEVENTFD");
    public static readonly IoctlRequest EnableCap = IoctlRequest.Iow<KvmEnableCap>(Kvmio, 0xA3, "KVM_ENABLE_CAP");

    // on a vCPU
    public static readonly IoctlRequest Run = IoctlRequest.Io(Kvmio, 0x80, "KVM_RUN");
    public static readonly IoctlRequest GetRegs = IoctlRequest.Ior<KvmRegs>(Kvmio, 0x81, "KVM_GET_REGS");
    public static readonly IoctlRequest SetRegs = IoctlRequest.Iow<KvmRegs>(Kvmio, 0x82, "KVM_SET_REGS");
    public static readonly IoctlRequest GetSregs = IoctlRequest.Ior<KvmSregs>(Kvmio, 0x83, "KVM_GET_SREGS");
    public static readonly IoctlRequest SetSregs = IoctlRequest.Iow<KvmSregs>(Kvmio, 0x84, "KVM_SET_SREGS");
    public static readonly IoctlRequest GetMsrs = IoctlRequest.Iowr<KvmMsrs>(Kvmio, 0x88, "KVM_GET_MSRS");
    public static readonly IoctlRequest SetMsrs = IoctlRequest.Iow<KvmMsrs>(Kvmio, 0x89, "KVM_SET_MSRS");
    public static readonly IoctlRequest SetSignalMask = IoctlRequest.Iow<uint>(Kvmio, 0x8B, "KVM_SET_SIGNAL_MASK");
    public static readonly IoctlRequest SetFpu = IoctlRequest.Iow<KvmFpu>(Kvmio, 0x8D, "KVM_SET_FPU");
    public static readonly IoctlRequest GetLapic = IoctlRequest.Ior<KvmLapicState>(Kvmio, 0x8E, "KVM_GET_LAPIC");
    public static readonly IoctlRequest SetLapic = IoctlRequest.Iow<KvmLapicState>(Kvmio, 0x8F, "KVM_SET_LAPIC");
    public static readonly IoctlRequest SetCpuid2 = IoctlRequest.Iow<KvmCpuid2>(Kvmio, 0x90, "KVM_SET_CPUID2");
    public static readonly IoctlRequest KvmclockCtrl = IoctlRequest.Io(Kvmio, 0xAD, "KVM_KVMCLOCK_CTRL");
    public static readonly IoctlRequest GetMpState = IoctlRequest.Ior<KvmMpState>(Kvmio, 0x98, "KVM_GET_MP_STATE");
    public static readonly IoctlRequest GetTscKhz = IoctlRequest.Io(Kvmio, 0xA3, "KVM_GET_TSC_KHZ");
}
