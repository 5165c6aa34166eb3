namespace Vmm.Devices.Bus;

/// <summary>An edge-triggered interrupt line of a device; the machine wires it to an interrupt controller.</summary>
public interface IInterruptLine
{
    /// <summary>Pulses the line. From any thread, without blocking or allocating.</summary>
    void Trigger();
}
