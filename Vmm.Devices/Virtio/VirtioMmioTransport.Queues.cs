using Vmm.Vhost;

namespace Vmm.Devices.Virtio;

// The registers of the selected queue, and kicks.
public sealed partial class VirtioMmioTransport
{
    private void WriteQueue(int offset, uint value)
    {
        if (_queueSel >= _queues.Length)
        {
            Ignore(offset, "is for a queue that is not there");
            return;
        }
        QueueRegisters queue = _queues[_queueSel];
        // The values are final from QueueReady and from DRIVER_OK on: a back-end has its own copy of them.
        if ((_status & (VirtioStatus.FeaturesOk | VirtioStatus.DriverOk | VirtioStatus.Failed | VirtioStatus.NeedsReset)) != VirtioStatus.FeaturesOk
            || (queue.Ready && offset != VirtioMmioRegister.QueueReady))
        {
            Ignore(offset, "comes when the queue cannot be set up");
            return;
        }
        switch (offset)
        {
            case VirtioMmioRegister.QueueNum:
                queue.Size = value;
                break;
            case VirtioMmioRegister.QueueReady:
                queue.Ready = value == 1;
                ShowQueue();
                break;
            case VirtioMmioRegister.QueueDescLow:
                queue.Descriptors = WithLow(queue.Descriptors, value);
                break;
            case VirtioMmioRegister.QueueDescHigh:
                queue.Descriptors = WithHigh(queue.Descriptors, value);
                break;
            case VirtioMmioRegister.QueueDriverLow:
                queue.Driver = WithLow(queue.Driver, value);
                break;
            case VirtioMmioRegister.QueueDriverHigh:
                queue.Driver = WithHigh(queue.Driver, value);
                break;
            case VirtioMmioRegister.QueueDeviceLow:
                queue.Device = WithLow(queue.Device, value);
                break;
            case VirtioMmioRegister.QueueDeviceHigh:
                queue.Device = WithHigh(queue.Device, value);
                break;
            default:
                Ignore(offset, "is to a register that cannot be written");
                break;
        }

        static ulong WithLow(ulong whole, uint low) => (whole & ~0xFFFF_FFFFUL) | low;
        static ulong WithHigh(ulong whole, uint high) => (whole & 0xFFFF_FFFFUL) | ((ulong)high << 32);
    }

    private void Notify(uint value)
    {
        // Only what KVM does not turn into a signal comes here: a queue of the VMM's own, or a VMM without ioeventfds.
        uint index = (_driverFeatures & VirtioFeatures.NotificationData) != 0 ? value & 0xFFFF : value;
        if (index >= _queues.Length || !_queues[index].Ready
            || (_status & (VirtioStatus.DriverOk | VirtioStatus.Failed | VirtioStatus.NeedsReset)) != VirtioStatus.DriverOk)
        {
            Ignore(VirtioMmioRegister.QueueNotify, "is for a queue that does not run");
        }
        else if (_device.IsDelegated((int)index))
        {
            _queues[index].Kick.SignalPeer();
        }
        else
        {
            _device.Notify((int)index);
        }
    }

    private void ShowQueue()
    {
        QueueRegisters? queue = _queueSel < _queues.Length ? _queues[_queueSel] : null;
        Registers.Set(VirtioMmioRegister.QueueNumMax, (uint)(queue?.MaxSize ?? 0));
        Registers.Set(VirtioMmioRegister.QueueReady, queue is { Ready: true } ? 1U : 0);
    }
}
