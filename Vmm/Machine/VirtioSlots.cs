using Vmm.Acpi;
using Vmm.Devices.Bus;
using Vmm.Devices.Virtio;
using Vmm.Kvm;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.Confinement;

namespace Vmm.Machine;

/// <summary>The virtio devices, each in a slot: a page of registers, an interrupt, and an eventfd for each kick that a back-end waits
/// for. They outlive a reset.</summary>
internal sealed class VirtioSlots : IDisposable
{
    private static readonly BoundedLog s_log = new("Vmm.Machine");

    private readonly EventLoop _events = new();
    private readonly List<VirtioMmioTransport> _transports = [];
    private readonly bool _mapRegisters;

    /// <summary>Opens <paramref name="devices"/> and puts them on the bus.</summary>
    /// <param name="devices">The devices, at most <see cref="AddressMap.VirtioMmioSlots"/>.</param>
    /// <param name="memory">The guest's memory.</param>
    /// <param name="mmio">The bus.</param>
    /// <param name="kvm">What it cannot do is done without.</param>
    /// <param name="cancellation">Ends the wait for a device's back-end.</param>
    /// <exception cref="VhostException">The host cannot give a device what it needs; the message says what to do.</exception>
    /// <exception cref="OperationCanceledException">A back-end was not waited for any longer.</exception>
    public VirtioSlots(
        IReadOnlyList<VirtioDeviceOptions> devices, GuestMemory memory, IoBus mmio, KvmSystem kvm, CancellationToken cancellation)
    {
        ulong addressEnd = HostLimits.AddressEnd(kvm);
        _mapRegisters = kvm.Check(KvmCapability.ReadonlyMem) != 0;
        if (!_mapRegisters && devices.Count > 0)
            s_log.Info("no {Capability}: reading a device register leaves the guest", KvmCapability.ReadonlyMem.Name);
        try
        {
            foreach (VirtioDeviceOptions options in devices)
            {
                VirtioMmioTransport transport = Open(options, memory, cancellation);
                _transports.Add(transport);
                VirtioMmioSlot slot = SlotOf(_transports.Count - 1);
                mmio.Attach(slot.Address.Value, slot.Length, transport);
                s_log.Debug("{Device} is at {Address}, GSI {Gsi}", transport.Name, slot.Address, slot.Gsi);
            }
            PlaceSharedMemory(memory, addressEnd);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>The slots that hold a device.</summary>
    public IReadOnlyList<VirtioMmioSlot> Occupied => [.. _transports.Select((_, i) => SlotOf(i))];

    /// <summary>The system calls that the devices make on vCPU threads.</summary>
    public IEnumerable<SystemCallRule> DriverCalls => _transports.SelectMany(transport => transport.DriverCalls);

    /// <summary>The system calls that they make elsewhere besides.</summary>
    public IEnumerable<SystemCallRule> EventCalls => _transports.SelectMany(transport => transport.EventCalls);

    /// <summary>How often drivers have started a device, over all resets; once no vCPU runs.</summary>
    public long Starts => _transports.Sum(transport => transport.Starts);

    /// <summary>Connects all devices to a new VM.</summary>
    public void Bind(KvmVm vm)
    {
        for (int i = 0; i < _transports.Count; i++)
        {
            VirtioMmioTransport transport = _transports[i];
            VirtioMmioSlot slot = SlotOf(i);
            transport.Interrupt.DrainPeer();
            vm.BindIrqFd(transport.Interrupt, slot.Gsi);
            if (_mapRegisters)
                vm.MapReadOnly(slot.Address, RegisterPage.Size, transport.Registers.Address);
            foreach ((int offset, uint value, EventFd signal) in transport.Notifications)
                vm.BindIoEventFd(signal, slot.Address + (ulong)offset, value);
            foreach (SharedMemoryWindow window in transport.SharedMemory)
                vm.Map(window.Start, window.Length, window.HostAddress);
        }
    }

    /// <summary>Whether somebody may still write to the guest's memory although all devices were reset; see
    /// <see cref="VirtioDevice.MayWrite"/>.</summary>
    public bool MayWriteToMemory => _transports.Exists(transport => transport.MayWriteToMemory);

    /// <summary>Whether a device has shared memory, in which the guest sees files of the host's.</summary>
    public bool HasSharedMemory => _transports.Exists(transport => transport.SharedMemory.Count > 0);

    /// <summary>Resets all devices at the same time: back-ends that do not stop hold up the guest's restart once, and not one after another.</summary>
    public void Reset() => AtOnce.Do(_transports, transport => transport.Reset());

    /// <summary>Resets all devices, whose guest has other memory from now on.</summary>
    public void Reset(GuestMemory memory) => AtOnce.Do(_transports, transport => transport.Reset(memory));

    /// <summary>What tells a kernel without ACPI of the devices: words for its command line (Linux
    /// Documentation/admin-guide/kernel-parameters.txt, "virtio_mmio.device="), in the form that other guests read, too: kibibytes, no id.</summary>
    public string KernelParameters => string.Join(
        ' ', Occupied.Select(slot => $"virtio_mmio.device={slot.Length >> 10}K@0x{slot.Address.Value:x}:{slot.Gsi}"));

    /// <summary>Stops and frees all devices, at the same time.</summary>
    public void Dispose()
    {
        AtOnce.Do(_transports, transport => transport.Dispose());
        _events.Dispose();
    }

    private VirtioMmioTransport Open(VirtioDeviceOptions options, GuestMemory memory, CancellationToken cancellation)
    {
        foreach (int number in options.InheritedDescriptors)
        {
            if (FileDescriptor.IsCloseOnExec(number))
            {
                throw new VhostException($"{options.Label}: fd={number} was not inherited: vmm has opened a file of its own by that number: start vmm with the descriptor, "
                    + "and give its number");
            }
        }
        try
        {
            return new VirtioMmioTransport(options.Open(_events, cancellation), memory);
        }
        catch (ErrnoException e)
        {
            // Descriptors, threads or memory have run out, of which a device's own messages do not speak.
            throw new VhostException($"{options.Label}: {e.Message}", e);
        }
    }

    private void PlaceSharedMemory(GuestMemory memory, ulong addressEnd)
    {
        ulong next = Math.Max(memory.Regions[^1].End.Value, AddressMap.HighRamStart);
        foreach (VirtioMmioTransport transport in _transports)
        {
            foreach (SharedMemoryWindow window in transport.SharedMemory)
            {
                next = Align.Up(next, AddressMap.SharedMemoryAlignment);
                if (next > addressEnd || window.Length > addressEnd - next)
                {
                    throw new VhostException($"{transport.Name}: its shared memory of {window.Length >> 20} MiB is more than a guest can "
                        + "address on this host: leave dax off");
                }
                window.Start = new GuestAddress(next);
                next += window.Length;
            }
        }
    }

    private static VirtioMmioSlot SlotOf(int index) => new(
        (byte)index,
        new GuestAddress(AddressMap.VirtioMmioStart + (ulong)index * AddressMap.VirtioMmioSlotSize),
        AddressMap.VirtioMmioSlotSize,
        AddressMap.VirtioMmioGsi(index));
}
