using Vmm.Devices.Platform;

namespace Vmm.Tests.Fakes;

/// <summary>Collects what a serial port sends, as long as there is room.</summary>
internal sealed class FakeUartOutput : IUartOutput
{
    public List<byte> Bytes { get; } = [];

    public int Room { get; set; } = int.MaxValue;

    public bool TryWrite(byte value)
    {
        if (Room == 0)
            return false;
        Room--;
        Bytes.Add(value);
        return true;
    }
}
