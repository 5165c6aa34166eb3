namespace Vmm.Devices.Backends.Block;

/// <summary>Who does what would make a queue wait.</summary>
public enum BlockEngineKind
{
    /// <summary>io_uring where the kernel lets us and can restrict it (Linux 5.10), threads where not.</summary>
    Auto,

    /// <summary>io_uring.</summary>
    IoUring,

    /// <summary>Threads of our own.</summary>
    Threads,
}
