namespace Vmm.Devices.Platform;

/// <summary>Where a serial port sends its bytes.</summary>
public interface IUartOutput
{
    /// <summary>Takes one byte. From any vCPU thread, under the port's lock: without blocking or allocating.</summary>
    /// <returns>False when there is no room: the port keeps the byte and tells the guest to wait. <see cref="Uart16550.OutputReady"/>
    /// must then be called once there is room, and not from inside this call.</returns>
    bool TryWrite(byte value);
}
