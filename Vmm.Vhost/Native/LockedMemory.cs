using System.Runtime.InteropServices;

namespace Vmm.Vhost.Native;

/// <summary>The limit of memory that this process may lock in place (RLIMIT_MEMLOCK, getrlimit(2)).</summary>
public static partial class LockedMemory
{
    private const int RlimitMemlock = 8;                // asm-generic/resource.h
    private const ulong Infinity = ulong.MaxValue;

    /// <summary>Lifts the limit as far as this process may: altogether as root, else to what is allowed it at most.</summary>
    public static void RaiseLimit()
    {
        var unlimited = new Rlimit { Current = Infinity, Maximum = Infinity };
        if (SetLimit(RlimitMemlock, in unlimited) == 0 || GetLimit(RlimitMemlock, out Rlimit limit) != 0)
            return;
        limit.Current = limit.Maximum;
        _ = SetLimit(RlimitMemlock, in limit);
    }

    [LibraryImport("libc", EntryPoint = "setrlimit")]
    private static partial int SetLimit(int resource, in Rlimit limit);

    [LibraryImport("libc", EntryPoint = "getrlimit")]
    private static partial int GetLimit(int resource, out Rlimit limit);

    private struct Rlimit
    {
        public ulong Current;
        public ulong Maximum;
    }
}
