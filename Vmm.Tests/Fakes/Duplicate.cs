using System.Runtime.InteropServices;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Fakes;

/// <summary>Another number for a descriptor (dup(2)), as a process inherits it.</summary>
internal static partial class Duplicate
{
    public static int Of(FileDescriptor descriptor) => Dup(descriptor.Number);

    [LibraryImport("libc", EntryPoint = "dup")]
    private static partial int Dup(int fd);
}
