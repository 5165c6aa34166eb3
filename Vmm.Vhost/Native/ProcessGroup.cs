using Tmds.Linux;

namespace Vmm.Vhost.Native;

/// <summary>The process group (job) of this process.</summary>
internal static class ProcessGroup
{
    /// <summary>Its number, by getpgrp(2).</summary>
    public static int Current => LibC.getpgrp();
}
