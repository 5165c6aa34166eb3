using Vmm.Devices.Bus;
using Vmm.Vhost.Native;

namespace Vmm.Kvm;

/// <summary>An interrupt line made of an eventfd, which KVM turns into an edge at an input of the interrupt controllers
/// without waking this process. It outlives the VM, so that a device keeps its line over a reset of the machine.</summary>
internal sealed class IrqFd(uint gsi) : IInterruptLine, IDisposable
{
    private readonly EventFd _signal = new();

    /// <inheritdoc/>
    public void Trigger() => _signal.Signal();

    /// <summary>Connects the line to <paramref name="vm"/>; what was signalled before is forgotten.</summary>
    public void Bind(KvmVm vm)
    {
        _signal.Drain();
        vm.BindIrqFd(_signal, gsi);
    }

    /// <inheritdoc/>
    public void Dispose() => _signal.Dispose();
}
