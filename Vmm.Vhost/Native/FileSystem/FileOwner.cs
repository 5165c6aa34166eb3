using Tmds.Linux;

namespace Vmm.Vhost.Native.FileSystem;

/// <summary>Whose a file is.</summary>
public static class FileOwner
{
    private const uint WritableByOthers = 0x12;     // 0022

    /// <summary>Whether a file is of the user that this process acts as, and nobody else may write to it.</summary>
    /// <param name="user">The file's owner.</param>
    /// <param name="mode">Its mode.</param>
    public static bool IsOwn(uint user, uint mode) => user == (uint)LibC.geteuid() && (mode & WritableByOthers) == 0;
}
