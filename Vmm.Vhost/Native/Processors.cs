using System.Runtime.InteropServices;

namespace Vmm.Vhost.Native;

/// <summary>The processors of the machine.</summary>
public static partial class Processors
{
    private const int OnlineCount = 84;     // _SC_NPROCESSORS_ONLN of bits/confname.h

    /// <summary>How many run programs, whether this process may use them or not (sysconf(3)); at least 1. Reads /sys/devices/system/cpu/online, so a
    /// process asks before it confines itself.</summary>
    public static int CountOnline() => Math.Max(1, (int)SysConf(OnlineCount));

    [LibraryImport("libc", EntryPoint = "sysconf")]
    private static partial nint SysConf(int name);
}
