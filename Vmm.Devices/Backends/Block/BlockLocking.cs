namespace Vmm.Devices.Backends.Block;

/// <summary>When a block device locks its image. The lock is QEMU's: it keeps QEMU's programs and other back-ends of ours from writing the image, or
/// from opening it at all if we write it.</summary>
public enum BlockLocking
{
    /// <summary>From the moment that it is opened until the process ends. Only at the end of a migration, when the guest stops here to go on elsewhere, is
    /// the lock given up; it is taken again if the guest goes on here.</summary>
    On,

    /// <summary>From the moment that a guest's driver starts the first ring, and then as with <see cref="On"/>: for the back-end of a
    /// migration's destination, which is opened while that of the source still writes the image.</summary>
    Deferred,

    /// <summary>Never.</summary>
    Off,

    /// <summary>From the moment that it is opened until the process ends, beside the lock of the process that has started this one and keeps the image locked, whichever
    /// back-end is there: see <see cref="Vmm.Vhost.Native.DiskLocking.Kept"/>.</summary>
    Kept,
}
