using Vmm.Tests.Fakes;
using Vmm.Vhost;

namespace Vmm.Tests.Devices.Virtio;

/// <summary>What a virtio-mmio device in front of a <see cref="FakeVirtioDevice"/> must do with a 32-bit register write, by the words of
/// VIRTIO 1.2 §2.1 and §4.2.2, and in the plainest way: states and rules, no page, no device.</summary>
internal sealed class TransportModel
{
    private readonly ModelQueue[] _queues = [new(64), new(128), new(256)];
    private uint _status;
    private uint _deviceFeaturesSel;
    private uint _driverFeaturesSel;
    private uint _queueSel;
    private uint _shmSel;
    private readonly uint[] _driverFeatures = [0, 0];

    public uint Status => _status;

    public uint QueueNumMax => Selected?.Max ?? 0;

    public uint QueueReady => Selected is { Ready: true } ? 1U : 0;

    public uint InterruptStatus => ((_status & VirtioDriver.DriverOk) != 0 ? 1U : 0) | (HasConfigInterrupt ? 2U : 0);

    public uint DeviceFeatures => _deviceFeaturesSel switch
    {
        0 => 5,
        1 => (uint)(VirtioFeatures.Version1 >> 32),
        _ => 0,
    };

    public uint ShmLenLow => _shmSel == 1 ? 0x1000 : uint.MaxValue;

    public bool HasConfigInterrupt { get; private set; }

    private ModelQueue? Selected => _queueSel < 3 ? _queues[_queueSel] : null;

    private ulong Accepted => _driverFeatures[0] | ((ulong)_driverFeatures[1] << 32);

    public void Write(int offset, uint value)
    {
        bool canSetUp = Selected is not null && (_status & 0xCC) == 8;
        switch (offset)
        {
            case 0x14: _deviceFeaturesSel = value; break;
            case 0x24: _driverFeaturesSel = value; break;
            case 0x20 when _driverFeaturesSel < 2 && (_status & 0x8A) == 2: _driverFeatures[_driverFeaturesSel] = value; break;
            case 0x30: _queueSel = value; break;
            case 0x38 when canSetUp && !Selected!.Ready: Selected!.Size = value; break;
            case 0x44 when canSetUp: Selected!.Ready = value == 1; break;
            case 0x64: HasConfigInterrupt &= (value & 2) == 0; break;
            case 0x70: WriteStatus(value); break;
            case 0x80 or 0x84 or 0x90 or 0x94 or 0xA0 or 0xA4 when canSetUp && !Selected!.Ready:
                Selected!.Words[offset] = value;
                break;
            case 0xAC: _shmSel = value; break;
        }
    }

    private void WriteStatus(uint value)
    {
        if (value == 0)
        {
            for (int i = 0; i < 3; i++)
                _queues[i] = new ModelQueue(_queues[i].Max);
            _status = _deviceFeaturesSel = _driverFeaturesSel = _queueSel = _shmSel = 0;
            _driverFeatures[0] = _driverFeatures[1] = 0;
            HasConfigInterrupt = false;
            return;
        }
        uint mine = _status & 0x8F;
        if ((mine & 0x80) != 0 && (value & mine) == mine && (value & 0x8F & ~mine & ~2U) == 0 && (value & 2) != 0)
        {
            WriteStatus(0);     // the next driver, which makes no reset
            _status = 3;
            return;
        }
        if ((mine & value) != mine || (mine & 0x80) != 0)
            return;
        if ((value & 0x80) != 0)
        {
            _status |= 0x80;
            return;
        }
        _status |= value & 1;
        if ((_status & 1) != 0)
            _status |= value & 2;
        bool good = (Accepted & VirtioFeatures.Version1) != 0
            && (Accepted & ~(5 | VirtioFeatures.Version1)) == 0;
        if ((_status & 2) != 0 && good)
            _status |= value & 8;
        if ((_status & 0x4C) == 8 && (value & 4) != 0)
        {
            _status |= 4;
            if (_queues.Any(queue => queue.Ready && !queue.IsGood))
                NeedReset();
        }
    }

    private void NeedReset()
    {
        _status |= VirtioDriver.NeedsReset;
        HasConfigInterrupt = true;
    }

    private sealed class ModelQueue(uint max)
    {
        public uint Max { get; } = max;

        public uint Size { get; set; } = max;

        public bool Ready { get; set; }

        public Dictionary<int, uint> Words { get; } = [];

        // Guest memory is one MiB from 0 on.
        public bool IsGood => Size is 1 or 2 or 4 or 8 or 16 or 32 or 64 or 128 or 256 && Size <= Max
            && Fits(0x80, 16 * Size, 16) && Fits(0x90, 6 + 2 * Size, 2) && Fits(0xA0, 6 + 8 * Size, 4);

        private bool Fits(int low, uint length, uint alignment)
        {
            UInt128 address = Words.GetValueOrDefault(low) | ((UInt128)Words.GetValueOrDefault(low + 4) << 32);
            return address % alignment == 0 && address + length <= 1 << 20;
        }
    }
}
