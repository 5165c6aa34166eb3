using Vmm.Devices.Bus;

namespace Vmm.Tests.Fakes;

/// <summary>Keeps what an interrupt controller says, and counts how often.</summary>
internal sealed class FakeInterruptRoutes : IInterruptRoutes
{
    public Dictionary<int, InterruptMessage> Messages { get; } = [];

    public int Calls { get; private set; }

    public void Set(int input, InterruptMessage? message)
    {
        Calls++;
        if (message is { } some)
            Messages[input] = some;
        else
            Messages.Remove(input);
    }
}
