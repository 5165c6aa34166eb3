using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;

namespace Vmm.Kvm;

/// <summary>A virtual machine of KVM's: its memory slots, interrupt controllers and vCPUs.</summary>
internal sealed class KvmVm(FileDescriptor fd, int runSize) : IDisposable
{
    private uint _slots;

    /// <summary>Gives KVM the pages it needs in the guest's address space on Intel hosts without unrestricted guest: three
    /// for a task state segment and one for an identity map. Before any vCPU (Linux Documentation/virt/kvm/api.rst, 4.29, 4.40).</summary>
    public void SetReservedPages(GuestAddress tss, GuestAddress identityMap)
    {
        ulong address = identityMap.Value;
        Ioctl.Call(fd, KvmIoctls.SetIdentityMapAddr, ref address);
        Ioctl.Call(fd, KvmIoctls.SetTssAddr, (nuint)tss.Value);
    }

    /// <summary>Puts the interrupt controllers and the timer of a PC into the kernel: two 8259s, an I/O APIC and a local APIC per vCPU,
    /// an 8254.</summary>
    public void CreatePcInterruptControllers()
    {
        Ioctl.Call(fd, KvmIoctls.CreateIrqchip);
        var pit = new KvmPitConfig { Flags = KvmPitConfig.SpeakerDummy };
        Ioctl.Call(fd, KvmIoctls.CreatePit2, ref pit);
    }

    /// <summary>Puts a local APIC per vCPU into the kernel, and nothing else: what an interrupt line leads to is told by <see cref="SetRoutes"/>.</summary>
    public void CreateLocalApics()
    {
        // No argument: of no line would KVM have to report the end of an interrupt (api.rst, 7.5).
        var argument = new KvmEnableCap { Cap = (uint)KvmCapability.SplitIrqchip.Number };
        Ioctl.Call(fd, KvmIoctls.EnableCap, ref argument);
    }

    /// <summary>From now on messages name CPUs by APIC ids of 32 bits. Before any vCPU (api.rst, 7.8).</summary>
    public void UseLongApicIds()
    {
        var argument = new KvmEnableCap
        {
            Cap = (uint)KvmCapability.X2ApicApi.Number,
            Arg0 = KvmEnableCap.Use32BitIds | KvmEnableCap.DisableBroadcastQuirk,
        };
        Ioctl.Call(fd, KvmIoctls.EnableCap, ref argument);
    }

    /// <summary>Takes the performance counters from the guest, also those that no CPUID tells of (AMD's four oldest). Before any vCPU; a kernel that cannot do it, older
    /// than 5.18, leaves the guest those (api.rst, 8.35).</summary>
    /// <param name="offered">What KVM_CHECK_EXTENSION says of <see cref="KvmCapability.PmuCapability"/>.</param>
    public void HideCounters(int offered)
    {
        if ((offered & KvmEnableCap.DisablePmu) == 0)
            return;
        var argument = new KvmEnableCap { Cap = (uint)KvmCapability.PmuCapability.Number, Arg0 = KvmEnableCap.DisablePmu };
        Ioctl.Call(fd, KvmIoctls.EnableCap, ref argument);
    }

    /// <summary>Replaces all routes of interrupt lines by those of <paramref name="table"/>, a <see cref="KvmIrqRouting"/> and its entries.</summary>
    public void SetRoutes(Span<byte> table) => Ioctl.Call(fd, KvmIoctls.SetGsiRouting, table);

    /// <summary>Shows all of <paramref name="memory"/> to the guest, a slot for each region. It must outlive the VM.</summary>
    public void MapMemory(GuestMemory memory)
    {
        foreach (ref readonly GuestRegion region in memory.Regions)
            AddSlot(region.Start, region.Size, region.HostAddress, flags: 0);
    }

    /// <summary>Shows addresses of this process to the guest, whatever is mapped there and whenever. They must outlive the VM.</summary>
    public void Map(GuestAddress start, ulong size, nint hostAddress) => AddSlot(start, size, hostAddress, flags: 0);

    /// <summary>Shows memory of this process to the guest, for reading: a write leaves the guest, as to a device (or signals the eventfd
    /// bound there). It must outlive the VM.</summary>
    public void MapReadOnly(GuestAddress start, ulong size, nint hostAddress) =>
        AddSlot(start, size, hostAddress, KvmUserspaceMemoryRegion.FlagReadOnly);

    /// <summary>From now on a 32-bit write of <paramref name="value"/> to <paramref name="address"/> signals <paramref name="signal"/>, in
    /// the kernel, and does not leave the guest.</summary>
    public void BindIoEventFd(EventFd signal, GuestAddress address, uint value)
    {
        using HeldDescriptor held = signal.Hold();
        var argument = new KvmIoeventfd
        {
            Datamatch = value,
            Addr = address.Value,
            Len = sizeof(uint),
            Fd = held.Number,
            Flags = KvmIoeventfd.FlagDatamatch,
        };
        Ioctl.Call(fd, KvmIoctls.Ioeventfd, ref argument);
    }

    /// <summary>From now on <paramref name="signal"/> pulses interrupt line <paramref name="gsi"/>, in the kernel.</summary>
    public void BindIrqFd(EventFd signal, uint gsi)
    {
        using HeldDescriptor held = signal.Hold();
        var argument = new KvmIrqfd { Fd = (uint)held.Number, Gsi = gsi };
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

    private void AddSlot(GuestAddress start, ulong size, nint hostAddress, uint flags)
    {
        var argument = new KvmUserspaceMemoryRegion
        {
            Slot = _slots++,
            Flags = flags,
            GuestPhysAddr = start.Value,
            MemorySize = size,
            UserspaceAddr = (ulong)hostAddress,
        };
        Ioctl.Call(fd, KvmIoctls.SetUserMemoryRegion, ref argument);
    }
}
