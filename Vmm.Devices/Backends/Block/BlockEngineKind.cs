namespace Vmm.Devices.Backends.Block;

/// <summary>What does the disk's reads, writes and flushes, so that no queue waits for them.</summary>
public enum BlockEngineKind
{
    /// <summary>io_uring where the kernel lets us and can restrict it (Linux 5.10), threads where not.</summary>
    Auto,

    /// <summary>io_uring.</summary>
    IoUring,

    /// <summary>Threads of our own.</summary>
    Threads,
}
