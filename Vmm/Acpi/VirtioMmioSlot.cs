using Vmm.Vhost.Memory;

namespace Vmm.Acpi;

/// <summary>A virtio-mmio device as the DSDT describes it.</summary>
/// <param name="Uid">Its _UID, 0 to 255, different for each slot.</param>
/// <param name="Address">Its registers; they end at 4 GiB at the latest.</param>
/// <param name="Length">The registers' size in bytes, not 0.</param>
/// <param name="Gsi">Its interrupt: an input of the I/O APIC, edge-triggered, active high, not shared.</param>
internal readonly record struct VirtioMmioSlot(byte Uid, GuestAddress Address, uint Length, uint Gsi);
