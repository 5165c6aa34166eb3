using System.Diagnostics;
using System.Globalization;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;

namespace Vmm.Bench;

/// <summary>Keeps requests under way for a while, and counts them.</summary>
internal static class RateBench
{
    private const ulong Wanted = VirtioFeatures.Version1 | VirtioFeatures.IndirectDescriptors | VirtioFeatures.EventIndex;
    private const ulong BlockFlush = 1UL << 9;
    private const ulong BlockMultiqueue = 1UL << 12;

    /// <summary>A disk: requests on each of <paramref name="queues"/>.</summary>
    /// <returns>Requests a second, CPU time of process <paramref name="pid"/> in ns for each request, kicks and sleeps of the driver in percent of the
    /// requests.</returns>
    public static string Block(string path, int pid, bool isWrite, int depth, int queues, ulong diskSize, double seconds, bool spins)
    {
        using GuestMemory memory = CreateMemory();
        using BenchFrontEnd frontEnd = Begin(path, Wanted | BlockFlush | BlockMultiqueue, memory);
        var rings = new BenchQueue[queues];
        for (int i = 0; i < queues; i++)
            rings[i] = new BenchQueue(memory, i, i, spins);
        return Measure(frontEnd, rings, _ => new BlockRequests(isWrite, diskSize), depth, pid, seconds);
    }

    /// <summary>A directory: requests on its first request queue.</summary>
    /// <returns>As <see cref="Block"/>.</returns>
    public static string Fuse(string path, int pid, string operation, int depth, ulong fileSize, double seconds, bool spins)
    {
        using GuestMemory memory = CreateMemory();
        using BenchFrontEnd frontEnd = Begin(path, Wanted, memory);
        return Measure(frontEnd, [new BenchQueue(memory, 0, 1, spins)], ring =>
        {
            var setup = new FuseSetup();
            ring.Run(setup, 1, () => setup.IsLast);
            return new FuseRequests(operation, setup, fileSize);
        }, depth, pid, seconds);
    }

    private static string Measure(BenchFrontEnd frontEnd, BenchQueue[] rings, Func<BenchQueue, IBenchRequests> make, int depth, int pid, double seconds)
    {
        bool stop = false;
        var threads = new Thread[rings.Length];
        for (int i = 0; i < rings.Length; i++)
        {
            BenchQueue ring = rings[i];
            frontEnd.Start(ring.Config);
            IBenchRequests requests = make(ring);
            threads[i] = new Thread(() => ring.Run(requests, depth, () => Volatile.Read(ref stop)));
        }
        foreach (Thread thread in threads)
            thread.Start();
        Thread.Sleep(300);
        (long Completed, long Kicks, long Sleeps) first = Sum(rings);
        long cpu = ProcessClock.CpuTime(pid);
        long start = Stopwatch.GetTimestamp();
        Thread.Sleep(TimeSpan.FromSeconds(seconds));
        (long Completed, long Kicks, long Sleeps) last = Sum(rings);
        cpu = ProcessClock.CpuTime(pid) - cpu;
        double elapsed = Stopwatch.GetElapsedTime(start).TotalSeconds;
        Volatile.Write(ref stop, true);
        for (int i = 0; i < rings.Length; i++)
        {
            threads[i].Join();
            frontEnd.Stop(rings[i].Config.Index);
            rings[i].Dispose();
        }
        double completed = last.Completed - first.Completed;
        return string.Create(CultureInfo.InvariantCulture,
            $"{completed / elapsed:F0} {cpu / completed:F0} {100 * (last.Kicks - first.Kicks) / completed:F1} {100 * (last.Sleeps - first.Sleeps) / completed:F1}");
    }

    private static GuestMemory CreateMemory() => GuestMemory.Create([(new(0), 64 << 20)], new GuestMemoryOptions { Prefault = true });

    private static BenchFrontEnd Begin(string path, ulong wanted, GuestMemory memory)
    {
        var frontEnd = new BenchFrontEnd(path);
        if ((frontEnd.Begin(wanted, memory) & VirtioFeatures.EventIndex) == 0)
            throw new NotSupportedException("the back-end has no EVENT_IDX");
        return frontEnd;
    }

    private static (long Completed, long Kicks, long Sleeps) Sum(BenchQueue[] rings) =>
        (rings.Sum(ring => ring.Completed), rings.Sum(ring => ring.Kicks), rings.Sum(ring => ring.Sleeps));
}
