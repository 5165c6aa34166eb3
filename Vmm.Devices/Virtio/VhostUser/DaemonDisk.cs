using Vmm.Vhost.Native;

namespace Vmm.Devices.Virtio.VhostUser;

/// <summary>The disk of a program that serves one. Whoever starts the program keeps the disk open and locked from before its first start until its device is gone, so that
/// between two processes of the program nobody else gets it, and no process of it opens another one.</summary>
/// <param name="Path">A regular file or a block device.</param>
/// <param name="ReadOnly">Whether it is only read.</param>
/// <param name="IsLocked">Whether it is locked; if not, it is only made sure that it stays the same.</param>
/// <param name="Option">The program's option that tells it that the disk is kept; its value is <see cref="DiskFile.Key"/>.</param>
public sealed record DaemonDisk(string Path, bool ReadOnly, bool IsLocked, string Option)
{
    /// <summary>Opens it, and locks it.</summary>
    /// <exception cref="IOException">It cannot be opened, or somebody else has it.</exception>
    /// <exception cref="InvalidDataException">It is no disk.</exception>
    internal DiskFile Keep() => DiskFile.Keep(Path, ReadOnly, IsLocked);
}
