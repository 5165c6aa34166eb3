using NUnit.Framework;
using Vmm.Devices.Virtio;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Register = Vmm.Devices.Virtio.VirtioMmioRegister;

namespace Vmm.Tests.Devices.Virtio;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class VirtioMmioTransportTests : IDisposable
{
    private const ulong Features = FakeVirtioDevice.OwnFeatures | VirtioFeatures.Version1;
    private const ulong Ring = 0x10000;

    private readonly FakeVirtioDevice _device = new();
    private readonly GuestMemory _memory = GuestMemory.Create([(new(0), 1 << 20)]);
    private readonly VirtioMmioTransport _transport;
    private readonly VirtioDriver _driver;

    public VirtioMmioTransportTests()
    {
        _transport = new VirtioMmioTransport(_device, _memory);
        _driver = new VirtioDriver(_transport);
        _device.Calls.Clear();
    }

    public void Dispose()
    {
        _transport.Dispose();
        _memory.Dispose();
    }

    [Test]
    public void Registers_AfterPowerOn_IdentifyTheDevice()
    {
        Assert.That(_driver[Register.MagicValue], Is.EqualTo(0x74726976));
        Assert.That(_driver[Register.Version], Is.EqualTo(2));
        Assert.That(_driver[Register.DeviceId], Is.EqualTo(4));
        Assert.That(_driver[Register.QueueNumMax], Is.EqualTo(64));
        Assert.That(_driver[Register.DeviceFeatures], Is.EqualTo(FakeVirtioDevice.OwnFeatures));
        Assert.That(_driver[Register.InterruptStatus], Is.Zero);
        Assert.That(_driver[Register.Config], Is.EqualTo(0x04030201));
    }

    [Test]
    public void DeviceFeatures_HighWordSelected_LackWhatTheTransportCannotDo()
    {
        _driver[Register.DeviceFeaturesSel] = 1;
        Assert.That((ulong)_driver[Register.DeviceFeatures] << 32, Is.EqualTo(VirtioFeatures.Version1));
        _driver[Register.DeviceFeaturesSel] = 2;
        Assert.That(_driver[Register.DeviceFeatures], Is.Zero);
    }

    [Test]
    public void DriverOk_QueuesSetUp_StartsTheDeviceWithThem()
    {
        _driver.Negotiate(Features);
        _driver.SetUpQueue(0, 16, Ring);
        _driver.SetUpQueue(2, 256, Ring + 0x3000);
        _driver.Start();

        Assert.That(_driver.Status, Is.EqualTo(0xF));
        Assert.That(_device.Calls, Does.Contain($"start {Features:x} [0 2]"));
        VringConfig ring = _device.Queues[1];
        Assert.That(ring.Size, Is.EqualTo(256));
        Assert.That(ring.DescriptorArea.Value, Is.EqualTo(Ring + 0x3000));
        Assert.That(ring.DriverArea.Value, Is.EqualTo(Ring + 0x4000));
        Assert.That(ring.DeviceArea.Value, Is.EqualTo(Ring + 0x5000));
        Assert.That(ring.Call, Is.SameAs(_transport.Interrupt));
    }

    [Test]
    public void Starts_DriverStartsResetsAndStarts_CountsBoth()
    {
        _driver.Negotiate(Features);
        Assert.That(_transport.Starts, Is.Zero);
        _driver.Start();
        _transport.Reset();
        Assert.That(_transport.Starts, Is.EqualTo(1), "a reset forgets none");
        Run();
        Assert.That(_transport.Starts, Is.EqualTo(2));
    }

    [TestCase(Features & ~VirtioFeatures.Version1, Description = "a legacy driver")]
    [TestCase(Features | 2, Description = "not offered")]
    [TestCase(Features | VirtioFeatures.NotificationData, Description = "not offered by this transport")]
    public void FeaturesOk_BadFeatures_IsRefused(ulong features)
    {
        _driver.Negotiate(features);
        Assert.That(_driver.Status, Is.EqualTo(VirtioDriver.Acknowledge | VirtioDriver.Driver));
        _driver.Start();
        Assert.That(_driver.Status & VirtioDriver.DriverOk, Is.Zero);
    }

    [Test]
    public void QueueRegisters_WhileRunning_AreFrozen()
    {
        Run();
        _driver[Register.QueueSel] = 1;
        _driver[Register.QueueNum] = 8;
        _driver[Register.QueueReady] = 1;
        Assert.That(_driver[Register.QueueReady], Is.Zero, "a queue set up too late");
        _driver[Register.QueueSel] = 0;
        _driver[Register.QueueReady] = 0;
        Assert.That(_driver[Register.QueueReady], Is.EqualTo(1), "a queue taken away while it runs");
    }

    [TestCase(0U, Ring, "size")]
    [TestCase(3U, Ring, "size")]
    [TestCase(128U, Ring, "size", Description = "larger than the maximum")]
    [TestCase(0x10000U, Ring, "size")]
    [TestCase(0x80000010U, Ring, "size")]
    [TestCase(16U, Ring + 8, "descriptors")]
    [TestCase(16U, 0x100000UL - 16, "descriptors")]
    [TestCase(16U, 0x100000UL - 0x1000, "driver area")]
    [TestCase(16U, 0x100000UL - 0x2000, "device area")]
    [TestCase(16U, 0xFFFF_FFFF_FFFF_FFF0, "descriptors", Description = "wraps")]
    public void DriverOk_BadQueue_NeedsReset(uint size, ulong address, string what)
    {
        _driver.Negotiate(Features);
        _driver.SetUpQueue(0, size, address);
        _driver.Start();

        Assert.That(_driver.Status, Is.EqualTo(0xF | VirtioDriver.NeedsReset), what);
        Assert.That(_driver[Register.InterruptStatus] & 2, Is.EqualTo(2), "a configuration interrupt");
        Assert.That(_transport.Interrupt.Drain(), Is.Not.Zero);
        Assert.That(_device.Calls, Has.None.StartsWith("start"));
    }

    [Test]
    public void DriverOk_BackendFails_NeedsResetUntilReset()
    {
        _device.FailStart = "gone";
        Run();
        Assert.That(_driver.Status & VirtioDriver.NeedsReset, Is.Not.Zero);
        Assert.That(_device.Calls[^1], Is.EqualTo("stop"));

        _device.FailStart = null;
        Run();
        Assert.That(_driver.Status, Is.EqualTo(0xF));
    }

    // Linux resets the device when its driver is unbound, and not once more when a driver is bound.
    [Test]
    public void Reset_Incomplete_IsCompleteOnceNobodyWritesAnyMore()
    {
        Run();
        bool mayWrite = true;
        _device.Writes = _ => mayWrite;
        _driver.Status = 0;
        Assert.That(_driver.Status, Is.EqualTo(VirtioDriver.NeedsReset));
        _driver.Status = VirtioDriver.Acknowledge;
        Bind();
        Assert.That(_driver.Status, Is.EqualTo(VirtioDriver.Acknowledge | VirtioDriver.Driver | VirtioDriver.NeedsReset), "refused, and not left without an answer");
        _driver.Status |= VirtioDriver.Failed;
        Bind();
        Assert.That(_driver.Status, Is.EqualTo(VirtioDriver.Acknowledge | VirtioDriver.Driver | VirtioDriver.NeedsReset), "still");
        _driver.Status |= VirtioDriver.Failed;

        mayWrite = false;
        Bind();
        Assert.That(_driver.Status, Is.EqualTo(VirtioDriver.Acknowledge | VirtioDriver.Driver | VirtioDriver.FeaturesOk));
        _driver.Start();
        Assert.That(_driver.Status, Is.EqualTo(0xF));
        Assert.That(_device.Calls[^1], Does.StartWith("start"));

    }

    // As Linux's virtio_dev_probe does: it adds to the status that it finds.
    private void Bind(ulong features = Features)
    {
        _driver.Status |= VirtioDriver.Driver;
        _driver[Register.DriverFeaturesSel] = 0;
        _driver[Register.DriverFeatures] = (uint)features;
        _driver[Register.DriverFeaturesSel] = 1;
        _driver[Register.DriverFeatures] = (uint)(features >> 32);
        _driver.Status |= VirtioDriver.FeaturesOk;
    }

    [Test]
    public void Reset_ConfigurationThatCannotBeRead_ShowsTheLast()
    {
        Run();
        _device.FailConfig = "closed by force";
        Assert.That(_transport.Reset, Throws.Nothing);
        Assert.That(_driver.Status, Is.Zero);
        Assert.That(_driver[Register.Config], Is.EqualTo(0x04030201));
    }

    [Test]
    public void Create_ConfigurationThatCannotBeRead_IsRefused()
    {
        using var device = new FakeVirtioDevice { FailConfig = "on purpose" };
        Assert.That(() => new VirtioMmioTransport(device, _memory), Throws.TypeOf<VhostException>().With.Message.EqualTo("on purpose"));
    }

    [Test]
    public void Status_WriteThatClearsBits_HasNoEffect()
    {
        Run();
        _driver.Status = VirtioDriver.Acknowledge;
        Assert.That(_driver.Status, Is.EqualTo(0xF));
    }

    [Test]
    public void Status_Failed_TheDriverCannotGoOn()
    {
        _driver.Negotiate(Features);
        const uint failed = VirtioDriver.Acknowledge | VirtioDriver.Driver | VirtioDriver.FeaturesOk | VirtioDriver.Failed;
        _driver.Status = failed;
        _driver.Status = failed | VirtioDriver.DriverOk;
        Assert.That(_driver.Status, Is.EqualTo(failed));
        _driver.Status = failed & ~VirtioDriver.Failed;
        Assert.That(_driver.Status, Is.EqualTo(failed), "only a reset clears it");
        Assert.That(_device.Calls, Has.None.StartsWith("start"));
        _driver.Status = 0;
        Assert.That(_driver.Status, Is.Zero);
    }

    // Linux resets a device when it finds it, and not after a probe that failed: the next driver adds DRIVER to the status that stands there.
    [TestCase(VirtioDriver.Acknowledge)]
    [TestCase(VirtioDriver.Acknowledge | VirtioDriver.Driver)]
    [TestCase(VirtioDriver.Acknowledge | VirtioDriver.Driver | VirtioDriver.FeaturesOk)]
    [TestCase(VirtioDriver.Acknowledge | VirtioDriver.Driver | VirtioDriver.FeaturesOk | VirtioDriver.DriverOk)]
    public void Status_FailedAndTheNextDriverBinds_CountsAsAReset(uint status)
    {
        if ((status & VirtioDriver.DriverOk) != 0)
            Run();
        else if ((status & VirtioDriver.FeaturesOk) != 0)
            _driver.Negotiate(Features);
        else
            _driver.Status = status;
        _driver.Status |= VirtioDriver.Failed;
        Assert.That(_driver.Status, Is.EqualTo(status | VirtioDriver.Failed));
        _device.Calls.Clear();

        Bind();
        Assert.That(_device.Calls, Is.EqualTo(new[] { "stop" }));
        Assert.That(_driver.Status, Is.EqualTo(VirtioDriver.Acknowledge | VirtioDriver.Driver | VirtioDriver.FeaturesOk));
        Assert.That(_driver[Register.QueueReady], Is.Zero);
        _driver.SetUpQueue(0, 16, Ring);
        _driver.Start();
        Assert.That(_device.Calls[^1], Does.StartWith("start"));
    }

    [TestCase(VirtioDriver.Driver)]
    [TestCase(VirtioDriver.FeaturesOk)]
    [TestCase(VirtioDriver.DriverOk)]
    public void Status_StepsLeftOut_HasNoEffect(uint bit)
    {
        _driver.Status = bit;
        Assert.That(_driver.Status, Is.Zero);
    }

    [Test]
    public void Reset_WhileRunning_StopsAndForgets()
    {
        Run();
        _driver.Status = 0;
        Assert.That(_device.Calls[^1], Is.EqualTo("stop"));
        Assert.That(_driver[Register.QueueReady], Is.Zero);
        Assert.That(_driver[Register.InterruptStatus], Is.Zero);
    }

    [Test]
    public void ConfigChanged_WhileRunning_ShowsAllAtOnceAndInterrupts()
    {
        Run();
        uint generation = _driver[Register.ConfigGeneration];
        _device.Config = [11, 12, 13, 14, 15, 16, 17, 18, 19, 20];
        lock (_device.Sync)
            _transport.ConfigChanged();

        Assert.That(_driver[Register.ConfigGeneration], Is.Not.EqualTo(generation));
        Assert.That(_driver[Register.Config + 4], Is.EqualTo(0x1211100F));
        Assert.That(_driver[Register.InterruptStatus], Is.EqualTo(3));
        Assert.That(_transport.Interrupt.Drain(), Is.EqualTo(1));
        _driver[Register.InterruptAck] = 3;
        Assert.That(_driver[Register.InterruptStatus], Is.EqualTo(1), "used buffers are always possible");
    }

    [Test]
    public void ConfigChanged_AWriteOfTheDriversHasShownIt_InterruptsAllTheSame()
    {
        Run();
        _device.Config[0] = 0x77;       // by itself, and before it says so
        _transport.Write(Register.Config + 8, [0x99]);
        uint generation = _driver[Register.ConfigGeneration];
        Assert.That(_driver[Register.Config] & 0xFF, Is.EqualTo(0x77));
        Assert.That(_transport.Interrupt.Drain(), Is.Zero);

        lock (_device.Sync)
            _transport.ConfigChanged();
        Assert.That(_driver[Register.InterruptStatus], Is.EqualTo(3));
        Assert.That(_transport.Interrupt.Drain(), Is.EqualTo(1));
        Assert.That(_driver[Register.ConfigGeneration], Is.EqualTo(generation));
    }

    [Test]
    public void Configuration_ReadWhileItChanges_IsNeverMixed()
    {
        _device.Config.AsSpan().Clear();
        Run();
        using var done = new CancellationTokenSource(TimeSpan.FromMilliseconds(300));
        int changes = 0;
        var writer = new Thread(() =>
        {
            for (byte value = 0; !done.IsCancellationRequested; value++, changes++)
            {
                lock (_device.Sync)
                {
                    _device.Config.AsSpan().Fill(value);
                    _transport.ConfigChanged();
                }
            }
        });
        writer.Start();
        int mixed = 0, read = 0;
        while (!done.IsCancellationRequested)
        {
            (uint before, ulong first, ulong second, uint after) = ReadAsAGuest();
            if (before == after)
            {
                read++;
                mixed += first != second ? 1 : 0;
            }
        }
        writer.Join();
        Assert.That(read, Is.GreaterThan(0));
        Assert.That(changes, Is.GreaterThan(100));
        Assert.That(mixed, Is.Zero, $"of {read} reads with the same generation before and after");
    }

    [Test]
    public void WriteConfig_AsDriver_ReachesTheDevice()
    {
        _transport.Write(Register.Config, [9]);
        Assert.That(_driver[Register.Config], Is.EqualTo(0x04030201), "without a driver");
        _driver.Status = VirtioDriver.Acknowledge;
        _driver.Status = VirtioDriver.Acknowledge | VirtioDriver.Driver;
        _transport.Write(Register.Config + 1, [0xAA, 0xBB]);
        Assert.That(_driver[Register.Config], Is.EqualTo(0x04BBAA01));
        _transport.Write(Register.Config + 9, [1, 2]);
        Assert.That(_driver[Register.Config + 8], Is.EqualTo(0x0A09), "past the end");
    }

    [Test]
    public void Notify_DelegatedQueue_KicksAndOwnQueueIsCalled()
    {
        Run();
        _driver[Register.QueueNotify] = 0;
        Assert.That(_device.Queues[0].Kick.Drain(), Is.EqualTo(1));
        _driver[Register.QueueNotify] = FakeVirtioDevice.OwnQueue;
        Assert.That(_device.Calls[^1], Is.EqualTo("notify 2"));
        _driver[Register.QueueNotify] = 1;
        _driver[Register.QueueNotify] = 3;
        _driver[Register.QueueNotify] = uint.MaxValue;
        Assert.That(_device.Calls[^1], Is.EqualTo("notify 2"), "queues that do not run");
    }

    [Test]
    public void Notifications_AreOneADelegatedQueueAndTheAcknowledgement() =>
        Assert.That(
            _transport.Notifications.Select(notification => (notification.Offset, notification.Value)),
            Is.EqualTo(new[] { (0x50, 0U), (0x50, 1U), (0x64, 1U) }));

    [Test]
    public void SharedMemory_Selected_IsShownOrMinusOne()
    {
        Assert.That(_driver[Register.ShmLenHigh], Is.EqualTo(uint.MaxValue));
        _driver[Register.ShmSel] = 1;
        Assert.That(_driver[Register.ShmLenLow], Is.EqualTo(0x1000));
        Assert.That(_driver[Register.ShmLenHigh], Is.EqualTo(2));
        Assert.That(_driver[Register.ShmBaseLow], Is.EqualTo(0x34567000));
        Assert.That(_driver[Register.ShmBaseHigh], Is.EqualTo(0x12));
    }

    [Test]
    public void Access_EveryOffsetAndWidth_IsDefinedAndAllocatesNothing()
    {
        Run();
        byte[] data = new byte[8];
        SweepPage(data);
        long before = GC.GetAllocatedBytesForCurrentThread();
        SweepPage(data);
        Assert.That(GC.GetAllocatedBytesForCurrentThread() - before, Is.Zero);
        Assert.That(_driver.Status, Is.EqualTo(0xF), "nothing but whole registers can be written");
    }

    [Test]
    public void Dispose_WhileRunning_StopsTheDevice()
    {
        Run();
        _transport.Dispose();
        Assert.That(_device.Calls[^1], Is.EqualTo("stop"));
        Assert.That(_device.IsDisposed);
    }

    private void Run(ulong features = Features)
    {
        _driver.Negotiate(features);
        _driver.SetUpQueue(0, 16, Ring);
        _driver.SetUpQueue(FakeVirtioDevice.OwnQueue, 16, Ring + 0x3000);
        _driver.Start();
    }

    // Widths other than 4 and unaligned offsets: 32-bit writes of zero would reset the device.
    private void SweepPage(byte[] data)
    {
        for (ulong offset = 0; offset <= RegisterPage.Size; offset++)
        {
            for (int width = 1; width <= data.Length; width++)
            {
                _transport.Read(offset, data.AsSpan(0, width));
                if (width != 4 || offset % 4 != 0)
                    _transport.Write(offset, data.AsSpan(0, width));
            }
        }
    }

    // What a guest's loads from the mapped page do: no lock.
    private unsafe (uint Before, ulong First, ulong Second, uint After) ReadAsAGuest()
    {
        byte* page = (byte*)_transport.Registers.Address;
        uint before = Volatile.Read(ref *(uint*)(page + Register.ConfigGeneration));
        ulong first = Volatile.Read(ref *(uint*)(page + Register.Config));
        ulong second = Volatile.Read(ref *(uint*)(page + Register.Config + 4));
        return (before, first, second, Volatile.Read(ref *(uint*)(page + Register.ConfigGeneration)));
    }
}
