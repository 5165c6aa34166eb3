using System.Collections.Concurrent;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Memory;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Frontend;

namespace Vmm.Tests.Conformance;

/// <summary>A guest of software: memory, queues and a front-end on a daemon's socket, without a VMM.</summary>
internal sealed class PeerGuest : IVhostUserFrontendEvents, IDisposable
{
    public const int QueueSize = 128;

    private static readonly TimeSpan s_timeout = TimeSpan.FromSeconds(30);
    private static readonly (GuestAddress, ulong)[] s_oneRegion = [(new(0), 16 << 20)];

    private readonly Lock _sync = new();
    private readonly ConcurrentQueue<string> _told = [];
    private readonly List<GuestMemory> _memories = [];

    /// <summary>Connects to a daemon.</summary>
    /// <param name="socket">Its socket.</param>
    /// <param name="queues">How many queues the device has.</param>
    /// <param name="regions">Where memory is; 16 MiB from 0 on when null.</param>
    /// <param name="change">What else is to be different.</param>
    public PeerGuest(
        string socket, int queues, (GuestAddress, ulong)[]? regions = null, Func<VhostUserFrontendOptions, VhostUserFrontendOptions>? change = null)
    {
        var options = new VhostUserFrontendOptions
        {
            Endpoint = VhostUserEndpoint.ConnectTo(socket),
            Device = "--test",
            RingCount = queues,
            QueueSize = QueueSize,
            ConnectTimeout = s_timeout,
            ReplyTimeout = s_timeout,
            Sync = _sync,
        };
        Heap = NewHeap(regions ?? s_oneRegion);
        try
        {
            Frontend = VhostUserFrontend.Open(change?.Invoke(options) ?? options);
            Frontend.Events = this;
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    public VhostUserFrontend Frontend { get; } = null!;

    public GuestHeap Heap { get; private set; }

    public PeerQueue[] Queues { get; private set; } = [];

    /// <summary>What the front-end had to say.</summary>
    public string Told => string.Join(", ", _told);

    /// <summary>How often the daemon was gone.</summary>
    public int Disconnections => _told.Count(told => told.StartsWith("disconnected", StringComparison.Ordinal));

    /// <summary>What a driver does until its device runs: new queues, of which each has its memory in a region of its own as far as they go.</summary>
    /// <returns>What was agreed on.</returns>
    public ulong Start(ulong features)
    {
        features &= Frontend.Features;
        foreach (PeerQueue queue in Queues)
            queue.Dispose();
        Queues = new PeerQueue[Frontend.RingCount];
        for (int i = 0; i < Queues.Length; i++)
            Queues[i] = new PeerQueue(Heap, i, QueueSize, features, i % Heap.Memory.Regions.Length);
        lock (_sync)
        {
            Frontend.SetFeatures(features);
            Frontend.SetMemory(Heap.Memory);
            Frontend.Start(Array.ConvertAll(Queues, queue => queue.Config));
        }
        return features;
    }

    /// <summary>Stops every queue, has <paramref name="meanwhile"/> done, and lets them go on where they were.</summary>
    /// <returns>Where each of them was.</returns>
    public uint[] Pause(Action<VhostUserFrontend>? meanwhile = null)
    {
        lock (_sync)
        {
            uint[] bases = Array.ConvertAll(Queues, queue => Frontend.Stop(queue.Config.Index));
            meanwhile?.Invoke(Frontend);
            Frontend.Start([.. Queues.Select(queue => queue.Config with { Base = bases[queue.Config.Index] })]);
            return bases;
        }
    }

    /// <summary>What a guest's reboot does to its device.</summary>
    public void Reset()
    {
        lock (_sync)
            Frontend.Reset();
    }

    /// <summary>The guest has other memory from now on; its device is to be started again.</summary>
    public void ReplaceMemory(params (GuestAddress, ulong)[] regions) => Heap = NewHeap(regions);

    public void WaitUntilRestored(int times) => Eventually.True(
        () => _told.Count(told => told == "restored") >= times, () => $"the daemon was not connected to again {times} times: {Told}");

    void IVhostUserFrontendEvents.ConfigChanged() => _told.Enqueue("config changed");

    void IVhostUserFrontendEvents.Lost(string reason) => _told.Enqueue($"lost {reason}");

    void IVhostUserFrontendEvents.Disconnected(string reason) => _told.Enqueue($"disconnected {reason}");

    void IVhostUserFrontendEvents.Restored() => _told.Enqueue("restored");

    public void Dispose()
    {
        Frontend?.Dispose();
        foreach (PeerQueue queue in Queues)
            queue.Dispose();
        foreach (GuestMemory memory in _memories)
            memory.Dispose();
    }

    private GuestHeap NewHeap((GuestAddress, ulong)[] regions)
    {
        GuestMemory memory = GuestMemory.Create(regions);
        _memories.Add(memory);
        return new GuestHeap(memory);
    }
}
