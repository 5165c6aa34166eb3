using Vmm.Devices.Virtio;
using Vmm.Vhost;
using Vmm.Vhost.Memory;

namespace Vmm.Tests.Fakes;

/// <summary>A device that remembers what its transport asked of it. Queue 2 is its own, the others are delegated.</summary>
internal sealed class FakeVirtioDevice : VirtioDevice
{
    public const ulong OwnFeatures = 0x5;
    public const int OwnQueue = 2;

    public byte[] Config { get; set; } = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];

    public List<string> Calls { get; } = [];

    public IReadOnlyList<VringConfig> Queues { get; private set; } = [];

    public string? FailStart { get; set; }

    /// <summary>Why the configuration cannot be read; null: it can.</summary>
    public string? FailConfig { get; set; }

    public bool IsDisposed { get; private set; }

    /// <summary>Says of which memory it may go on writing to; null: of none.</summary>
    public Func<GuestMemory, bool>? Writes { get; set; }

    public override string Name => "fake";

    public override VirtioDeviceType Type => VirtioDeviceType.Rng;

    public override ulong Features { get; } =
        OwnFeatures | VirtioFeatures.Version1 | VirtioFeatures.RingReset | VirtioFeatures.NotificationData;

    public override int QueueCount => 3;

    public override int ConfigSize => Config.Length;

    public override int MaxQueueSize(int queue) => 64 << queue;

    public override bool IsDelegated(int queue) => queue != OwnQueue;

    public override void ReadConfig(Span<byte> config)
    {
        if (FailConfig is not null)
            throw new VhostException(FailConfig);
        Config.CopyTo(config);
    }

    public override void WriteConfig(int offset, ReadOnlySpan<byte> data) => data.CopyTo(Config.AsSpan(offset));

    public override (GuestAddress Start, ulong Length)? FindSharedMemory(uint id) =>
        id == 1 ? (new GuestAddress(0x12_3456_7000), 0x2_0000_1000) : null;

    public override void Start(ulong features, GuestMemory memory, IReadOnlyList<VringConfig> queues)
    {
        Queues = [.. queues];
        Calls.Add($"start {features:x} [{string.Join(' ', queues.Select(queue => queue.Index))}]");
        if (FailStart is not null)
            throw new VhostException(FailStart);
    }

    public override bool MayWrite(GuestMemory memory) => Writes?.Invoke(memory) ?? false;

    public override void Stop()
    {
        Queues = [];
        Calls.Add("stop");
    }

    public override void Notify(int queue) => Calls.Add($"notify {queue}");

    public override void Dispose() => IsDisposed = true;
}
