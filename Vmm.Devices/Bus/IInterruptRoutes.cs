namespace Vmm.Devices.Bus;

/// <summary>Where an interrupt controller says what its inputs lead to; the machine sees to it that a pulse of an input's line
/// then sends that message.</summary>
public interface IInterruptRoutes
{
    /// <summary>From now on <paramref name="input"/> sends <paramref name="message"/>, or nothing when that is null. From any vCPU thread,
    /// one at a time.</summary>
    void Set(int input, InterruptMessage? message);
}

/// <summary>An interrupt as what it is on the way to a local APIC: a write to an address that selects the CPUs, of a word that says
/// how and by which vector (Intel SDM vol. 3A, 11.11 "Message Signalled Interrupts").</summary>
/// <param name="Address">0xFEExxxxx: bits 7:0 of the destination's APIC id are in bits 19:12. Bits 63:40 are the upper bits of that id, for a machine with more CPUs than
/// 8 bits can name (KVM's api.rst, KVM_CAP_X2APIC_API).</param>
/// <param name="Data">The vector, the delivery mode and the trigger mode.</param>
public readonly record struct InterruptMessage(ulong Address, uint Data);
