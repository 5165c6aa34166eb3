using System.Diagnostics;
using System.Globalization;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Frontend;

namespace Vmm.Bench;

/// <summary>What a vhost-user front-end of the library costs besides the requests: from connecting to a block device to the first request
/// that it served, and one message with its reply.</summary>
internal static class ControlBench
{
    private const int BlockConfigSize = 60; // as far as WRITE_ZEROES goes (VIRTIO 1.2 §5.2.4)

    /// <summary>Connects twice to the device at <paramref name="path"/>, with code that has not run yet and again, and exchanges messages.</summary>
    /// <returns>In µs, time and CPU time of this process: of the first connection, of the second one, of a message.</returns>
    public static string Run(string path, ulong diskSize, int messages)
    {
        // Of its own for each connection: a ring begins with zeroes.
        using GuestMemory oneMemory = CreateMemory(), otherMemory = CreateMemory();
        var first = Clock.Start();
        Connect(path, oneMemory, diskSize, first).Dispose();
        var second = Clock.Start();
        using VhostUserFrontend frontend = Connect(path, otherMemory, diskSize, second);
        ulong features = frontend.Session.GetFeatures();
        var exchange = Clock.Start();
        for (int i = 0; i < messages; i++)
        {
            if (frontend.Session.GetFeatures() != features)
                throw new InvalidOperationException("the back-end has other features now");
        }
        exchange.Stop();
        return string.Create(
            CultureInfo.InvariantCulture,
            $"{first.Time:F1} {first.CpuTime:F1} {second.Time:F1} {second.CpuTime:F1} {exchange.Time / messages:F2} {exchange.CpuTime / messages:F2}");
    }

    private static GuestMemory CreateMemory() => GuestMemory.Create([(new(0), 64 << 20)], new GuestMemoryOptions { Prefault = true });

    // Until a block has been read.
    private static VhostUserFrontend Connect(string path, GuestMemory memory, ulong diskSize, Clock clock)
    {
        using var ring = new BenchQueue(memory, 0, 0);
        var frontend = VhostUserFrontend.Open(new VhostUserFrontendOptions
        {
            Endpoint = VhostUserEndpoint.ConnectTo(path),
            Device = "vmm-bench",
            RingCount = 1,
            QueueSize = BenchQueue.Size,
            ConfigSize = BlockConfigSize,
            Sync = new Lock(),
        });
        try
        {
            const ulong Wanted = VirtioFeatures.Version1 | VirtioFeatures.IndirectDescriptors | VirtioFeatures.EventIndex;
            if ((frontend.Features & Wanted) != Wanted)
                throw new NotSupportedException($"the back-end does not have the features 0x{Wanted & ~frontend.Features:x}");
            frontend.SetFeatures(Wanted);
            frontend.SetMemory(memory);
            frontend.Start([ring.Config]);
            ring.Run(new BlockRequests(isWrite: false, diskSize), 1, () => true);
            clock.Stop();
            frontend.Stop(0);
            return frontend;
        }
        catch
        {
            frontend.Dispose();
            throw;
        }
    }

    /// <summary>Time, and CPU time of this process, in µs.</summary>
    private sealed class Clock
    {
        private readonly long _time = Stopwatch.GetTimestamp();
        private readonly long _cpuTime = ProcessClock.CpuTime(Environment.ProcessId);

        public double Time { get; private set; }

        public double CpuTime { get; private set; }

        public static Clock Start() => new();

        public void Stop()
        {
            CpuTime = (ProcessClock.CpuTime(Environment.ProcessId) - _cpuTime) / 1e3;
            Time = Stopwatch.GetElapsedTime(_time).TotalMicroseconds;
        }
    }
}
