using NUnit.Framework;
using Tmds.Linux;
using Vmm.Devices.Net;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Net;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Tests.Devices.Virtio;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class NetControlQueueTests : IDisposable
{
    private readonly RingDriver _driver = new();
    private readonly FakeControl _control = new();
    private readonly NetControlQueue _queue;

    public NetControlQueueTests() =>
        _queue = new NetControlQueue(new SplitVirtqueue(_driver.Memory.AddressSpace, _driver.Config, VirtioFeatures.Version1), _control);

    public void Dispose() => _driver.Dispose();

    [TestCase(new byte[] { 0, 0, 0 }, "filter promiscuous=False")]
    [TestCase(new byte[] { 0, 0, 1 }, "filter promiscuous=True")]
    [TestCase(new byte[] { 0, 1, 1 }, "filter promiscuous=True all")]
    [TestCase(new byte[] { 0, 5, 1 }, "filter promiscuous=True")]
    [TestCase(new byte[] { 1, 1, 2, 0, 0, 1, 2, 3 }, "mac 02:00:00:01:02:03")]
    [TestCase(new byte[] { 2, 0, 0xFF, 0x0F }, "")]
    [TestCase(new byte[] { 2, 1, 1, 0 }, "")]
    [TestCase(new byte[] { 3, 0 }, "announced")]
    [TestCase(new byte[] { 4, 0, 3, 0 }, "pairs 3")]
    [TestCase(new byte[] { 5, 0, 2, 0, 0, 0, 0, 0, 0, 0 }, "offloads 2")]
    public void Process_Command_IsDoneAndAcknowledged(byte[] command, string expected)
    {
        Assert.That(Send(command), Is.Zero);
        Assert.That(string.Join("; ", _control.Calls), Is.EqualTo(expected));
    }

    [TestCase(new byte[0])]
    [TestCase(new byte[] { 0 })]
    [TestCase(new byte[] { 0, 0 }, Description = "no data")]
    [TestCase(new byte[] { 0, 0, 1, 1 }, Description = "too much data")]
    [TestCase(new byte[] { 0, 6, 1 }, Description = "an unknown mode")]
    [TestCase(new byte[] { 1, 0 }, Description = "no tables")]
    [TestCase(new byte[] { 1, 0, 1, 0, 0, 0, 2, 0, 0, 1, 2 }, Description = "a table cut short")]
    [TestCase(new byte[] { 1, 0, 0, 0, 0, 0 }, Description = "one table only")]
    [TestCase(new byte[] { 1, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0 }, Description = "a huge table")]
    [TestCase(new byte[] { 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9 }, Description = "more after the tables")]
    [TestCase(new byte[] { 1, 1, 3, 0, 0, 1, 2, 3 }, Description = "a group's address")]
    [TestCase(new byte[] { 1, 1, 0, 0, 0, 0, 0, 0 }, Description = "no address")]
    [TestCase(new byte[] { 1, 1, 2, 0, 0, 1, 2 }, Description = "5 bytes")]
    [TestCase(new byte[] { 2, 0, 0, 0x10 }, Description = "VLAN 4096")]
    [TestCase(new byte[] { 4, 0, 9, 0 }, Description = "more pairs than there are")]
    [TestCase(new byte[] { 4, 1, 1, 0 }, Description = "an unknown command")]
    [TestCase(new byte[] { 5, 0, 2, 0 }, Description = "offloads cut short")]
    [TestCase(new byte[] { 9, 0 }, Description = "an unknown class")]
    public void Process_BadCommand_IsRefused(byte[] command)
    {
        Assert.That(Send(command), Is.EqualTo(1));
        Assert.That(_control.Calls, Is.Empty);
    }

    [Test]
    public void Process_AddressTables_MakeTheFilter()
    {
        Send([0, 0, 0]);
        Assert.That(Send([1, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0x33, 0x33, 0, 0, 0, 1]), Is.Zero);
        Assert.That(_control.Calls[^1], Is.EqualTo("filter promiscuous=False 02:00:00:00:00:01 33:33:00:00:00:01"));
    }

    [Test]
    public void Process_MoreAddressesThanAreLookedAt_OpensTheFilter()
    {
        byte[] command = new byte[2 + 4 + 65 * 6 + 4];
        command[0] = 1;
        command[2] = 65;
        Assert.That(Send(command), Is.Zero);
        Assert.That(_control.Calls[^1], Is.EqualTo("filter promiscuous=True too many"));
    }

    [Test]
    public void Process_NoRoomForTheAnswer_ReturnsTheRequest()
    {
        _driver.PublishRequest([3, 0], room: 0);
        _queue.Process(out _);
        Assert.That(_driver.UsedIndex, Is.EqualTo(1));
        Assert.That(_control.Calls, Is.Empty);
    }

    // As from another processor of a guest: it must not hold this one, which has the device's lock, for ever.
    [Test]
    public void Process_DriverThatGoesOnAdding_IsAnsweredInTurns()
    {
        const int enough = 100;
        using var events = new EventLoop();
        using var device = new FakeVirtioDevice();
        using var transport = new VirtioMmioTransport(device, _driver.Memory);
        var port = new NetControlPort(device, _control, events);
        _control.Announced = () =>
        {
            if (_control.Calls.Count < enough)
                _driver.PublishRequest([3, 0], room: 1);
        };
        _driver.PublishRequest([3, 0], room: 1);
        lock (device.Sync)
        {
            port.Start(_driver.Memory, _driver.Config, VirtioFeatures.Version1);
            port.Process();
            Assert.That(_control.Calls, Has.Count.EqualTo(_driver.Config.Size));
        }
        Eventually.True(() => _driver.UsedIndex == enough, () => $"{_driver.UsedIndex} of {enough} are answered");
        lock (device.Sync)
            port.Stop();
    }

    // A back-end may have had the eventfd for a data queue, and have made it blocking. Whoever waits here has the device's lock.
    [Test]
    public unsafe void Kick_ThatABackendMadeBlocking_HoldsNobodyUp()
    {
        using var events = new EventLoop();
        using var device = new FakeVirtioDevice();
        using var transport = new VirtioMmioTransport(device, _driver.Memory);
        var port = new NetControlPort(device, _control, events);
        EventFd kick = _driver.Config.Kick;
        using (HeldDescriptor held = kick.Hold())
            Assert.That(LibC.fcntl(held.Number, LibC.F_SETFL, 0), Is.Zero);
        lock (device.Sync)
        {
            port.Start(_driver.Memory, _driver.Config, VirtioFeatures.Version1);
            // The event loop sees the kick, and waits for the lock; somebody else takes the kick meanwhile.
            kick.Signal();
            Thread.Sleep(200);
            kick.Drain();
        }
        Thread.Sleep(200);      // the event loop looks
        bool isFree = device.Sync.TryEnter(TimeSpan.FromSeconds(10));
        if (!isFree)
            kick.Signal();      // so that the test comes to an end
        Assert.That(isFree, "read(2) waits with the lock");
        // The driver goes on adding, so that a call leaves something; the eventfd is full.
        _control.Announced = () => _driver.PublishRequest([3, 0], room: 1);
        _driver.PublishRequest([3, 0], room: 1);
        events.Remove(kick);
        ulong all = ulong.MaxValue - 1;
        using (HeldDescriptor held = kick.Hold())
            Assert.That((long)LibC.write(held.Number, &all, sizeof(ulong)), Is.EqualTo(sizeof(ulong)));
        device.Sync.Exit();
        Task process = Task.Run(() =>
        {
            lock (device.Sync)
                port.Process();
        });
        bool isProcessed = process.Wait(TimeSpan.FromSeconds(10));
        if (!isProcessed)
            kick.Drain();
        Assert.That(isProcessed, "write(2) waits with the lock");
        lock (device.Sync)
            port.Stop();
    }

    private byte Send(byte[] command)
    {
        if (command.Length > 0)
        {
            _driver.PublishRequest(command, room: 1);
        }
        else
        {
            _driver.SetDescriptor(0, RingDriver.RoomAddress, 1, RingDriver.Write);
            _driver.Publish(0);
        }
        _driver.Memory.Write(new(RingDriver.RoomAddress), (byte)0xEE);
        Assert.That(_queue.Process(out _), Is.True, "an interrupt");
        return _driver.Memory.Read<byte>(new(RingDriver.RoomAddress));
    }

    private sealed class FakeControl : INetControl
    {
        public List<string> Calls { get; } = [];

        public Action? Announced { get; set; }

        public bool TrySetQueuePairs(int count)
        {
            if (count > 4)
                return false;
            Calls.Add($"pairs {count}");
            return true;
        }

        public bool TrySetOffloads(ulong offloads)
        {
            Calls.Add($"offloads {offloads}");
            return true;
        }

        public void SetMac(MacAddress address) => Calls.Add($"mac {address}");

        public void SetReceiveFilter(ReceiveFilter filter) => Calls.Add(string.Join(' ',
            [$"filter promiscuous={filter.Promiscuous}", .. filter.AllMulticast ? ["all"] : Array.Empty<string>(),
            .. filter.Addresses?.Select(address => address.ToString()) ?? ["too many"]]));

        public void AcknowledgeAnnounce()
        {
            Calls.Add("announced");
            Announced?.Invoke();
        }
    }
}
