using NUnit.Framework;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Memory;

public sealed unsafe class DirtyLogTests
{
    private const int PageSize = 4096;
    private const int Pages = 4096;
    private const int Rounds = 64;

    // Store buffering: a device writes to a page whose bit is set already, while a migration clears the bit and copies the page. Either the
    // migration sees what was written, or the bit is set again. On two processors it failed without the
    // fence in Mark. The second race shows how many pages this run loses without it, which may be none.
    [Test]
    public void Mark_WhileABitIsClearedAndItsPageCopied_LosesNoPage()
    {
        const ulong size = Pages / 8;
        using FileDescriptor file = MemFd.Create("log", PageSize);
        using var log = new DirtyLog(MemoryMapping.Map(file, PageSize, MappingAccess.SharedReadWrite), 0, size);
        using MemoryMapping view = MemoryMapping.Map(file, PageSize, MappingAccess.SharedReadWrite);
        int lost = 0;
        int unfenced = 0;
        for (int round = 0; round < Rounds; round++)
        {
            lost += Race(page => log.Mark((ulong)page * PageSize, 1), view.Pointer, round);
            unfenced += Race(page => MarkWithoutFence(view.Pointer, page), view.Pointer, round);
        }
        TestContext.Out.WriteLine($"lost without a fence: {unfenced} of {Rounds * Pages}");
        Assert.That(lost, Is.Zero);
    }

    [Test]
    public void Ranges_UponEachOther_AreTheirPages()
    {
        using FileDescriptor file = MemFd.Create("log", PageSize);
        using var log = new DirtyLog(MemoryMapping.Map(file, PageSize, MappingAccess.SharedReadWrite), 0x803, Pages / 8);
        using MemoryMapping view = MemoryMapping.Map(file, PageSize, MappingAccess.SharedReadWrite);
        var ranges = new DirtyRanges(log, 16);
        var random = new Random(1);
        for (int round = 0; round < 300; round++)
        {
            new Span<byte>(view.Pointer, PageSize).Clear();
            bool[] expected = new bool[Pages];
            for (int i = random.Next(16); i >= 0; i--)
            {
                (int start, int length) = (random.Next(Pages * PageSize), random.Next(1 << random.Next(22)));
                ranges.Add((ulong)start, (ulong)length);
                for (int page = start / PageSize; length > 0 && page <= Math.Min(Pages - 1, (int)(((long)start + length - 1) / PageSize)); page++)
                    expected[page] = true;
            }
            ranges.Mark();
            var bits = new ReadOnlySpan<byte>(view.Pointer, PageSize);
            for (int page = 0; page < Pages; page++)
            {
                if ((bits[0x803 + page / 8] >> page % 8 & 1) != 0 != expected[page])
                    Assert.Fail($"round {round}, page {page}: expected {expected[page]}");
            }
            Assert.That(bits[..0x803].IndexOfAnyExcept((byte)0), Is.EqualTo(-1), "in front of the log");
            Assert.That(bits[(0x803 + Pages / 8)..].IndexOfAnyExcept((byte)0), Is.EqualTo(-1), "behind it");
        }
    }

    private static void MarkWithoutFence(byte* bits, int page)
    {
        var word = (int*)(bits + page / 32 * 4);
        if ((Volatile.Read(ref *word) & 1 << page % 32) == 0)
            Interlocked.Or(ref *word, 1 << page % 32);
    }

    // How many pages were lost: clean, and not as they were copied.
    private static int Race(Action<int> mark, byte* bits, int seed)
    {
        new Span<byte>(bits, Pages / 8).Clear();
        int[] data = new int[Pages * 16];      // a cache line each
        int[] copies = new int[Pages * 16];
        int reached = -1;
        var device = new Thread(() =>
        {
            uint random = (uint)seed * 2654435761 + 1;
            for (int page = 0; page < Pages; page++)
            {
                Volatile.Write(ref data[page * 16], 1);
                mark(page);
                Volatile.Write(ref reached, page);
                random = random * 1664525 + 1013904223;
                Thread.SpinWait((int)(random >> 27));
                Volatile.Write(ref data[page * 16], 2);
                mark(page);
            }
        });
        device.Start();
        for (int page = 0; page < Pages; page++)
        {
            while (Volatile.Read(ref reached) < page)
            {
            }
            var word = (int*)(bits + page / 32 * 4);
            Interlocked.And(ref *word, ~(1 << page % 32));
            copies[page * 16] = Volatile.Read(ref data[page * 16]);
        }
        device.Join();
        int lost = 0;
        for (int page = 0; page < Pages; page++)
        {
            bool isDirty = (((int*)bits)[page / 32] & 1 << page % 32) != 0;
            lost += !isDirty && copies[page * 16] != data[page * 16] ? 1 : 0;
        }
        return lost;
    }
}
