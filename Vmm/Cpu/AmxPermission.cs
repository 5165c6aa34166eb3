using Vmm.Vhost.Native;

namespace Vmm.Cpu;

/// <summary>The permission to give guests AMX, whose tiles are 8 KiB of state for each vCPU.</summary>
internal static class AmxPermission
{
    /// <summary>Asks the host's kernel for it. Before the process makes its first vCPU, and before it asks KVM what a guest can have: KVM lists the state only to those
    /// that may use it.</summary>
    /// <exception cref="VmmException">The host does not give it; the message says why.</exception>
    public static void Ask()
    {
        try
        {
            ExtendedStatePermission.AskForGuests(ExtendedStatePermission.TileData);
        }
        catch (ErrnoException e)
        {
            throw new VmmException($"--cpus: amx=on needs an Intel processor with AMX and Linux 5.17 or later on this host: leave it out ({e.Message})", e);
        }
    }
}
