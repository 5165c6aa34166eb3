using Vmm.Vhost.Native;
using Vmm.Vhost.User.Backend;
using Vmm.Vhost.User.Protocol;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Tests.Fakes;

/// <summary>A device that answers each request by its data, each byte one more, and writes down what happens to it.</summary>
internal sealed class EchoDevice : VhostUserDevice
{
    private readonly Lock _lock = new();
    private readonly List<string> _events = [];
    private bool _holds;

    public override string Name => OnName is null ? "echo" : OnName();

    public Func<string>? OnName { get; set; }

    /// <summary>Called first by the methods of these names: ReadConfig, Reset, RingCount, SaveState.</summary>
    public Action<string>? OnCall { get; set; }

    public override ulong Features => 0xF;

    public override int RingCount
    {
        get
        {
            OnCall?.Invoke(nameof(RingCount));
            return Queues;
        }
    }

    public override bool IsInOrder => true;

    public override int ConfigSize => Config.Length;

    public override VhostUserProtocolFeatures ProtocolFeatures => Extra;

    public override IReadOnlyList<ulong> SharedMemorySizes => [0, 0x10000];

    public override int KeptMemorySize => Kept;

    /// <summary>Bytes of its own that its front-end keeps. It leaves them alone.</summary>
    public int Kept { get; init; }

    public int Queues { get; init; } = 2;

    public byte[] Config { get; init; } = [1, 2, 3, 4, 5, 6, 7, 8];

    public VhostUserProtocolFeatures Extra { get; init; }

    /// <summary>Requests are taken and kept as long as this is set.</summary>
    public bool Holds { get => Volatile.Read(ref _holds); set => Volatile.Write(ref _holds, value); }

    /// <summary>So many requests a ring takes at most, from its start on.</summary>
    public int Limit { get; set; } = int.MaxValue;

    /// <summary>So many requests are kept at most; others stay in the ring.</summary>
    public int MostHeld { get; set; } = int.MaxValue;

    /// <summary>What is kept may be left behind when a ring stops.</summary>
    public bool Leaves { get; set; }

    public bool Throws { get; set; }

    /// <summary>Rings that the driver used before they were started here.</summary>
    public List<int> Continued { get; } = [];

    /// <summary>Done by the ring's thread after each request that was completed.</summary>
    public Action? AfterEach { get; set; }

    public Action<BackendRing>? OnStart { get; set; }

    public byte[]? State { get; set; } = [1, 2, 3];

    public IReadOnlyList<string> Events
    {
        get
        {
            lock (_lock)
                return [.. _events];
        }
    }

    public override void ReadConfig(Span<byte> config)
    {
        OnCall?.Invoke(nameof(ReadConfig));
        Config.CopyTo(config);
    }

    public override bool WriteConfig(int offset, ReadOnlySpan<byte> data)
    {
        if (offset < 4)
            return false;
        data.CopyTo(Config.AsSpan(offset));
        return true;
    }

    public override void FeaturesAccepted(ulong features)
    {
        if (Throws)
            throw new InvalidOperationException("on purpose");
        Note($"features 0x{features:x}");
    }

    public override void Reset()
    {
        OnCall?.Invoke(nameof(Reset));
        Note("reset");
    }

    public override void FrontEndGone() => Note("gone");

    public override bool SendRarp(ReadOnlySpan<byte> mac)
    {
        Note($"rarp {Convert.ToHexString(mac)}");
        return true;
    }

    public override bool SetMtu(int mtu) => mtu <= 1500;

    public override byte[]? SaveState()
    {
        OnCall?.Invoke(nameof(SaveState));
        return State;
    }

    public override bool LoadState(ReadOnlySpan<byte> state)
    {
        if (state.Length > 100)
            return false;
        State = state.ToArray();
        return true;
    }

    public override IRingHandler StartRing(BackendRing ring)
    {
        OnStart?.Invoke(ring);
        Note($"start {ring.Index}");
        if (ring.IsContinued)
            Continued.Add(ring.Index);
        return new Handler(this);
    }

    public void Note(string what)
    {
        lock (_lock)
            _events.Add(what);
    }

    private sealed class Handler(EchoDevice device) : IRingHandler
    {
        private readonly List<(ushort Head, uint Written)> _held = [];
        private int _taken;

        public FileDescriptor? Ready => null;

        public void Process(BackendRing ring)
        {
            Span<byte> data = stackalloc byte[256];
            while (_taken < device.Limit && _held.Count < device.MostHeld && ring.TryTake(out DescriptorChain chain))
            {
                _taken++;
                Span<byte> bytes = data[..chain.Read(0, data)];
                foreach (ref byte value in bytes)
                    value++;
                uint written = (uint)chain.Write(0, bytes);
                if (device.Holds)
                {
                    device.Note($"held {chain.Head}");
                    _held.Add((chain.Head, written));
                }
                else
                {
                    ring.Complete(chain.Head, written);
                    device.AfterEach?.Invoke();
                }
            }
            if (!device.Holds)
                Release(ring);
            ring.Notify();
        }

        public void Drain(BackendRing ring)
        {
            device.Note($"drain {ring.Index}");
            if (ring.MayLeave && device.Leaves)
                _held.Clear();
            else
                Release(ring);
        }

        public void Dispose() => device.Note("end");

        private void Release(BackendRing ring)
        {
            foreach ((ushort head, uint written) in _held)
                ring.Complete(head, written);
            _held.Clear();
        }
    }
}
