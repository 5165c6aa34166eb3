using Vmm.Devices.Platform;

namespace Vmm.Tests.Fakes;

internal sealed class FakeMachineEvents : IMachineEvents
{
    public List<MachineEvent> Raised { get; } = [];

    public void Raise(MachineEvent machineEvent) => Raised.Add(machineEvent);
}
