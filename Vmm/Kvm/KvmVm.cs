using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;

namespace Vmm.Kvm;

/// <summary>A virtual machine of KVM's: its memory slots, interrupt controllers and vCPUs.</summary>
internal sealed class KvmVm(FileDescriptor fd, int runSize) : IDisposable
{
    private const uint IrqfdFlagDeassign = 1;   // KVM_IRQFD_FLAG_DEASSIGN

    /// <summary>Gives KVM the pages it needs in the guest's address space on Intel hosts without unrestricted guest: three
    /// for a task state segment and one for an identity map. Before any vCPU (Linux Documentation/virt/kvm/api.rst, 4.29, 4.40).</summary>
    public void SetReservedPages(GuestAddress tss, GuestAddress identityMap)
    {
        ulong address = identityMap.Value;
        Ioctl.Call(fd, KvmIoctls.SetIdentityMapAddr, ref address);
        Ioctl.Call(fd, KvmIoctls.SetTssAddr, (nuint)tss.Value);
    }

    /// <summary>Puts two 8259s, an IOAPIC and a local APIC per vCPU, and an 8254 timer, into the kernel.</summary>
    public void CreateInterruptControllers()
    {
        Ioctl.Call(fd, KvmIoctls.CreateIrqchip);
        var pit = new KvmPitConfig { Flags = KvmPitConfig.SpeakerDummy };
        Ioctl.Call(fd, KvmIoctls.CreatePit2, ref pit);
    }

    /// <summary>Shows all of <paramref name="memory"/> to the guest, a slot for each region. It must outlive the VM.</summary>
    public void MapMemory(GuestMemory memory)
    {
        uint slot = 0;
        foreach (ref readonly GuestRegion region in memory.Regions)
        {
            var argument = new KvmUserspaceMemoryRegion
            {
                Slot = slot++,
                GuestPhysAddr = region.Start.Value,
                MemorySize = region.Size,
                UserspaceAddr = (ulong)region.HostAddress,
            };
            Ioctl.Call(fd, KvmIoctls.SetUserMemoryRegion, ref argument);
        }
    }

    /// <summary>From now on <paramref name="signal"/> pulses interrupt line <paramref name="gsi"/>, in the kernel.</summary>
    public void BindIrqFd(EventFd signal, uint gsi)
    {
        var argument = new KvmIrqfd { Fd = (uint)signal.Number, Gsi = gsi };
        Ioctl.Call(fd, KvmIoctls.Irqfd, ref argument);
    }

    /// <summary>Undoes <see cref="BindIrqFd"/>.</summary>
    public void UnbindIrqFd(EventFd signal, uint gsi)
    {
        var argument = new KvmIrqfd { Fd = (uint)signal.Number, Gsi = gsi, Flags = IrqfdFlagDeassign };
        Ioctl.Call(fd, KvmIoctls.Irqfd, ref argument);
    }

    /// <summary>Makes the vCPU whose number and local APIC id are <paramref name="index"/>; 0 is the boot processor.</summary>
    public KvmVcpu CreateVcpu(int index)
    {
        var vcpu = new FileDescriptor(Ioctl.Call(fd, KvmIoctls.CreateVcpu, (nuint)index));
        try
        {
            return new KvmVcpu(vcpu, MemoryMapping.Map(vcpu, (ulong)runSize, MappingAccess.SharedReadWrite));
        }
        catch
        {
            vcpu.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public void Dispose() => fd.Dispose();
}
