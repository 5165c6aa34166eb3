using Vmm.Devices.Platform;

namespace Vmm.Serial;

/// <summary>The host's side of a serial port. It outlives resets of the machine.</summary>
/// <remarks>The port is made with the back-end as its output, and then given to <see cref="Start"/>. Disposing delivers the output that
/// is still queued, for at most about two seconds if nobody takes it, and drops what the port sends afterwards. Disposing is
/// idempotent, and possible from any thread.</remarks>
internal interface ISerialBackend : IUartOutput, IDisposable
{
    /// <summary>Begins to move bytes from and to <paramref name="uart"/>. Once.</summary>
    void Start(Uart16550 uart);

    /// <summary>The process is about to be stopped: a terminal gets its settings back.</summary>
    void Suspend()
    {
    }

    /// <summary>The process was stopped and goes on: a terminal becomes raw again, whatever was done to it meanwhile.</summary>
    void Resume()
    {
    }
}
