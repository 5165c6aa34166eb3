using Vmm.Vhost.Memory;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Frontend;
using Vmm.Vhost.Virtqueue;

namespace Example;

/// <summary>A driver of any vhost-user-blk back-end (VIRTIO 1.2 §5.2), with as many queues as its user wants.</summary>
public sealed class DiskFrontEnd : IVhostUserFrontendEvents, IDisposable
{
    private const ulong ConfigWce = 1 << 11, Mq = 1 << 12;   // VIRTIO_BLK_F_CONFIG_WCE and VIRTIO_BLK_F_MQ (§5.2.3)
    private const int ConfigSize = 60, WriteBack = 32;       // struct virtio_blk_config, and its member writeback (§5.2.4)
    private const int Stride = 0x10000;                      // each queue has 64 KiB: its rings, and a request behind them

    private readonly Action<string> _log;
    private readonly GuestMemory _memory;
    private readonly SplitVirtqueueDriver[] _queues = [];
    private readonly VhostUserFrontend _disk = null!;

    /// <summary>Connects to the back-end, or waits until it connects, and starts all queues.</summary>
    public DiskFrontEnd(VhostUserEndpoint endpoint, int queues, Action<string> log)
    {
        _log = log;
        _memory = GuestMemory.Create([(new GuestAddress(0), (ulong)(queues * Stride))]);
        try
        {
            _queues = [.. Enumerable.Range(0, queues).Select(i => new SplitVirtqueueDriver(_memory, At(i, 0), size: 128, i))];
            _disk = VhostUserFrontend.Open(new VhostUserFrontendOptions
            {
                Endpoint = endpoint,
                Device = "example",
                RingCount = queues,
                QueueSize = 128,
                ConfigSize = ConfigSize,
                ConfigRequired = true,
                CompletesRequests = true,
            });
            _disk.Events = this;
            _disk.SetFeatures(_disk.Features & (SplitVirtqueueDriver.SupportedFeatures | ConfigWce | Mq));
            _disk.SetMemory(_memory);
            _disk.Start([.. _queues.Select(queue => queue.Config)]);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>The capacity in sectors of 512 bytes.</summary>
    public ulong Sectors
    {
        get
        {
            byte[] config = new byte[ConfigSize];
            _disk.ReadConfig(config);
            return BitConverter.ToUInt64(config);
        }
    }

    /// <summary>Turns the disk's write cache on or off. Returns whether the back-end has done it.</summary>
    public bool SetWriteBack(bool isOn) => _disk.WriteConfig(WriteBack, [isOn ? (byte)1 : (byte)0]);

    /// <summary>Asks for a sector, and returns at once; one request at a time for each queue.</summary>
    public void BeginRead(int queue, ulong sector)
    {
        _memory.Write(At(queue, 0x8000), 0UL);   // VIRTIO_BLK_T_IN (§5.2.6)
        _memory.Write(At(queue, 0x8008), sector);
        _memory.Write(At(queue, 0x8010), (byte)0xFF);
        _queues[queue].Add(readable: [(At(queue, 0x8000), 16)], writable: [(At(queue, 0x9000), 512), (At(queue, 0x8010), 1)]);
        _queues[queue].Kick();
    }

    /// <summary>Waits for the sector, also while the back-end is away and comes back.</summary>
    public byte[] EndRead(int queue)
    {
        if (!_queues[queue].Wait(TimeSpan.FromSeconds(30)) || !_queues[queue].TryTake(out _, out _) || _memory.Read<byte>(At(queue, 0x8010)) != 0)
            throw new IOException($"{_disk.Name}: queue {queue} did not give the sector");
        return _memory.Slice(At(queue, 0x9000), 512).ToArray();
    }

    /// <summary>Stops all queues and starts them again: they go on where they were.</summary>
    public void Restart()
    {
        _disk.StopAll();
        _disk.Start([.. _queues.Select(queue => queue.Config)]);
    }

    public void ConfigChanged() => _log($"the disk has {Sectors} sectors now");

    public void Disconnected(string reason) => _log($"away: {reason}");

    public void Restored() => _log("back");

    public void Lost(string reason) => _log($"lost: {reason}");   // for good: each queue's Wait throws

    /// <summary>Stops all queues and disconnects. Only then nobody uses queues and memory any more.</summary>
    public void Dispose()
    {
        _disk?.Dispose();
        Array.ForEach(_queues, queue => queue.Dispose());
        _memory.Dispose();
    }

    private static GuestAddress At(int queue, ulong offset) => new((ulong)(queue * Stride) + offset);
}
