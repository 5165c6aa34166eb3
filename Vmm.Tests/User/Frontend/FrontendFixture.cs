using System.Collections.Concurrent;
using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Frontend;
using Vmm.Vhost.User.Protocol;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Tests.User.Frontend;

/// <summary>A front-end, its owner and its driver, with two rings.</summary>
internal sealed class FrontendFixture : IVhostUserFrontendEvents, IDisposable
{
    public const int RingSize = 16;

    private static readonly TimeSpan s_timeout = TimeSpan.FromSeconds(10);

    private VhostUserFrontend? _frontend;

    public FrontendFixture(string? path = null)
    {
        Path = path ?? FakeBackend.NewPath();
        Options = new VhostUserFrontendOptions
        {
            Endpoint = VhostUserEndpoint.ConnectTo(Path),
            Device = "--test",
            RingCount = 2,
            QueueSize = RingSize,
            ConfigSize = 8,
            ConfigRequired = true,
            ConnectTimeout = s_timeout,
            ReplyTimeout = s_timeout,
            Sync = Sync,
        };
        Rings = MakeRings();
    }

    public Lock Sync { get; } = new();

    public string Path { get; }

    public VhostUserFrontendOptions Options { get; set; }

    public GuestMemory Memory { get; } = GuestMemory.Create([(new(0), 1 << 20), (new(0x1000_0000), 1 << 20)]);

    public SplitVirtqueueDriver[] Rings { get; private set; }

    public ConcurrentQueue<string> Told { get; } = [];

    public VhostUserFrontend Frontend => _frontend ?? throw new InvalidOperationException("not open");

    /// <summary>Called, with the lock held, with each event.</summary>
    public Action<string>? OnTold { get; set; }

    /// <summary>Called when a new back-end makes its first request.</summary>
    public Action? OnSharedMemoryIsNew { get; set; }

    public VhostUserFrontend Open(CancellationToken cancellation = default)
    {
        _frontend = VhostUserFrontend.Open(Options, cancellation);
        _frontend.Events = this;
        return _frontend;
    }

    /// <summary>What a driver does until its device runs.</summary>
    public void StartAll()
    {
        lock (Sync)
        {
            Frontend.SetFeatures(VirtioFeatures.Version1);
            Frontend.SetMemory(Memory);
            Frontend.Start([Rings[0].Config, Rings[1].Config]);
        }
    }

    /// <summary>A new driver, whose rings are empty.</summary>
    public void ClearRings()
    {
        foreach (SplitVirtqueueDriver ring in Rings)
            ring.Dispose();
        Rings = MakeRings();
    }

    /// <summary>The kicks and calls that were signalled up to now are forgotten.</summary>
    public void DrainAll()
    {
        foreach (SplitVirtqueueDriver ring in Rings)
        {
            ring.Config.Kick.Drain();
            ring.Config.Call.Drain();
        }
    }

    /// <summary>Plays a driver and its device: so much of a ring was made available, and all of it used.</summary>
    public void SetUsedIndex(int ring, ushort index) => SetIndexes(ring, index, index);

    /// <summary>Plays a driver and its device: so much of a ring was made available, and so much used.</summary>
    public void SetIndexes(int ring, ushort available, ushort used)
    {
        Memory.Write(Rings[ring].Config.DriverArea + 2, available);
        Memory.Write(Rings[ring].Config.DeviceArea + 2, used);
    }

    public void WaitFor(string what) =>
        Eventually.True(() => Told.Any(told => told.StartsWith(what, StringComparison.Ordinal)), () => $"not told {what}, but {string.Join(", ", Told)}");

    void IVhostUserFrontendEvents.ConfigChanged() => Tell("config changed");

    void IVhostUserFrontendEvents.NeedsReset() => Tell("needs reset");

    void IVhostUserFrontendEvents.Lost(string reason) => Tell("lost " + reason);

    void IVhostUserFrontendEvents.Disconnected(string reason) => Tell("disconnected " + reason);

    void IVhostUserFrontendEvents.Restored() => Tell("restored");

    void IVhostUserFrontendEvents.SharedMemoryIsNew() => OnSharedMemoryIsNew?.Invoke();

    bool IVhostUserFrontendEvents.MapShared(in ShmemMapPayload mapping, FileDescriptor file)
    {
        Told.Enqueue($"map {mapping.ShmId}");
        return true;
    }

    bool IVhostUserFrontendEvents.UnmapShared(in ShmemMapPayload mapping)
    {
        Told.Enqueue($"unmap {mapping.ShmId}");
        return true;
    }

    public void Dispose()
    {
        _frontend?.Dispose();
        foreach (SplitVirtqueueDriver ring in Rings)
            ring.Dispose();
        Memory.Dispose();
        File.Delete(Path);
    }

    private SplitVirtqueueDriver[] MakeRings() => [new(Memory, new(0x1000), RingSize, 0), new(Memory, new(0x2000), RingSize, 1)];

    private void Tell(string what)
    {
        Assert.That(Sync.IsHeldByCurrentThread);
        Told.Enqueue(what);
        OnTold?.Invoke(what);
    }
}
