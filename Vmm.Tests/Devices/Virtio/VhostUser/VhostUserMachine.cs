using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.VhostUser;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.User;

namespace Vmm.Tests.Devices.Virtio.VhostUser;

/// <summary>A vhost-user device between a back-end that a test scripts and a driver that it plays.</summary>
internal sealed class VhostUserMachine : IDisposable
{
    private const ulong Rings = 0x10000;

    private readonly EventLoop _events = new();
    private readonly GuestMemory _memory = GuestMemory.Create([(new(0), 1 << 20)]);

    /// <summary>Opens the device.</summary>
    /// <param name="backend">The back-end; null for another program, which is its caller's.</param>
    /// <param name="options">The device.</param>
    public VhostUserMachine(FakeBackend? backend, VirtioDeviceOptions options)
    {
        Backend = backend?.Start()!;
        try
        {
            Device = options.Open(_events);
            Transport = new VirtioMmioTransport(Device, _memory);
            Driver = new VirtioDriver(Transport);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    public FakeBackend Backend { get; }

    public VirtioDevice Device { get; } = null!;

    public VirtioMmioTransport Transport { get; } = null!;

    public VirtioDriver Driver { get; } = null!;

    /// <summary>The configuration as the driver sees it.</summary>
    public byte[] Config => Transport.Registers.Current.Slice(VirtioMmioRegister.Config, Device.ConfigSize).ToArray();

    /// <summary>A peer that is reached at <paramref name="path"/>.</summary>
    public static VhostUserPeer PeerAt(string path) => new() { Endpoint = VhostUserEndpoint.ConnectTo(path) };

    /// <summary>Sets up the first <paramref name="queues"/> queues and lets the device run.</summary>
    public void StartDriver(int queues, ulong features = VirtioFeatures.Version1)
    {
        Driver.Negotiate(features);
        for (int queue = 0; queue < queues; queue++)
            Driver.SetUpQueue(queue, 16, AddressOf(queue));
        Driver.Start();
    }

    /// <summary>Where the three areas of a queue begin.</summary>
    public static ulong AddressOf(int queue) => Rings + 0x3000 * (ulong)queue;

    /// <summary>The guest's memory.</summary>
    public GuestMemory Memory => _memory;

    public void Dispose()
    {
        Transport?.Dispose();
        if (Transport is null)
            Device?.Dispose();
        _events.Dispose();
        _memory.Dispose();
        Backend?.Dispose();
    }
}
