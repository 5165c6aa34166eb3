using System.Runtime.InteropServices;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Fakes;

/// <summary>A pipe(2), both ends here.</summary>
internal sealed partial class Pipe : IDisposable
{
    public Pipe()
    {
        Span<int> ends = stackalloc int[2];
        if (CreatePipe(ref ends[0], 0x80000 /* O_CLOEXEC */) != 0)
            throw new IOException("pipe2");
        Reader = new FileDescriptor(ends[0]);
        Writer = new FileDescriptor(ends[1]);
    }

    public FileDescriptor Reader { get; }

    public FileDescriptor Writer { get; }

    public void Dispose()
    {
        Reader.Dispose();
        Writer.Dispose();
    }

    [LibraryImport("libc", EntryPoint = "pipe2")]
    private static partial int CreatePipe(ref int first, int flags);
}
