using System.Runtime.InteropServices;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Boot.Cache;

/// <summary>Pages in a row that are not zero.</summary>
/// <param name="First">The number of the first one in the unpacked payload.</param>
/// <param name="Count">How many: 1 or more.</param>
[StructLayout(LayoutKind.Sequential)]
internal readonly record struct PageRun(uint First, uint Count);

/// <summary>What stands near the end of a kept kernel's file. Before it are the pages of all runs, one after another, and then the runs, filled up by zeros to a
/// multiple of <see cref="PageChecksum.Step"/>; behind it is the checksum of all that. All in the byte order of the processor.</summary>
/// <param name="Magic">Which format this is.</param>
/// <param name="Source">The bzImage.</param>
/// <param name="Packed">The checksum of the bzImage's payload.</param>
/// <param name="Length">Bytes that it unpacks to.</param>
/// <param name="RunCount">How many runs there are.</param>
[StructLayout(LayoutKind.Sequential, Size = WireSize)]
internal readonly record struct CacheFooter(ulong Magic, FileVersion Source, PageChecksum Packed, uint Length, uint RunCount)
{
    /// <summary>Bytes of the structure: a multiple of <see cref="PageChecksum.Step"/>.</summary>
    public const int WireSize = 160;

    /// <summary>Another number for each change of the format, or of what is unpacked.</summary>
    public const ulong CurrentMagic = 0x0002_4C4E_4B4D_4D56;     // "VMMKNL", 2

    /// <summary>Bytes of a page.</summary>
    public const int PageSize = 4096;

    /// <summary>The bytes that <paramref name="count"/> runs take.</summary>
    public static int SizeOfRuns(int count) => ((count * 8) + PageChecksum.Step - 1) / PageChecksum.Step * PageChecksum.Step;
}
