using System.Runtime.InteropServices;
using NUnit.Framework;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Fakes;

/// <summary>Leaves this process a few descriptors, until it is disposed. Other threads may give back some meanwhile.</summary>
internal sealed partial class DescriptorLimit : IDisposable
{
    private const int NoFile = 7;       // RLIMIT_NOFILE of asm-generic/resource.h

    private readonly Limit _before;

    public DescriptorLimit(int left)
    {
        ulong next;
        using (var probe = new EventFd())
            next = (ulong)probe.Number;
        Assert.That(GetLimit(NoFile, out _before), Is.Zero);
        Assert.That(SetLimit(NoFile, _before with { Soft = next + (ulong)left }), Is.Zero);
    }

    public void Dispose() => Assert.That(SetLimit(NoFile, _before), Is.Zero);

    [LibraryImport("libc", EntryPoint = "getrlimit")]
    private static partial int GetLimit(int resource, out Limit limit);

    [LibraryImport("libc", EntryPoint = "setrlimit")]
    private static partial int SetLimit(int resource, in Limit limit);

    private record struct Limit(ulong Soft, ulong Hard);
}
