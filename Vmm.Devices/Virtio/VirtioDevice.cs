using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native.Confinement;

namespace Vmm.Devices.Virtio;

/// <summary>A virtio device, whatever its transport: what it offers, and what it does once a driver has set it up.</summary>
/// <remarks>The transport calls every member with <see cref="Sync"/> held. A device that has something to say by itself (its
/// configuration changed, its back-end died) takes <see cref="Sync"/> too, and then calls <see cref="Host"/>.</remarks>
public abstract class VirtioDevice : IDisposable
{
    /// <summary>The most bytes of configuration space that a transport shows.</summary>
    public const int MaxConfigSize = 0xF00;

    /// <summary>Guards the device and its transport.</summary>
    public Lock Sync { get; } = new();

    /// <summary>The transport; set before anything else is called.</summary>
    public IVirtioHost Host { get; set; } = null!;

    /// <summary>Begins to hear what happens to the device by itself. The transport calls this last, when both are complete: an event may
    /// come at once, on another thread. So descriptors go into an event loop here, and never while the device is made.</summary>
    public virtual void Listen()
    {
    }

    /// <summary>Ends the device because a call-back of its own has failed: its driver sees DEVICE_NEEDS_RESET.</summary>
    protected void Fail(string reason)
    {
        lock (Sync)
            Host.NeedsReset(reason);
    }

    /// <summary>What the device is called in messages: its option and what tells it from others, such as "--net tap=vmtap0".</summary>
    public abstract string Name { get; }

    /// <summary>The device type (VIRTIO 1.2 §5).</summary>
    public abstract VirtioDeviceType Type { get; }

    /// <summary>The system calls that it makes on vCPU threads once it is open: for a process that confines itself.</summary>
    public virtual IReadOnlyList<SystemCallRule> DriverCalls => [];

    /// <summary>The system calls that it makes on other threads besides.</summary>
    public virtual IReadOnlyList<SystemCallRule> EventCalls => [];

    /// <summary>The features a driver may accept.</summary>
    public abstract ulong Features { get; }

    /// <summary>How many queues there are, 1 to 256.</summary>
    public abstract int QueueCount { get; }

    /// <summary>Bytes of configuration space (VIRTIO 1.2 §2.5), at most <see cref="MaxConfigSize"/>.</summary>
    public abstract int ConfigSize { get; }

    /// <summary>The largest size the driver may give a queue: a power of two up to 32768.</summary>
    public abstract int MaxQueueSize(int queue);

    /// <summary>Whether a back-end works the queue, so that kicks go to an eventfd. If not, <see cref="Notify"/> is called.</summary>
    public virtual bool IsDelegated(int queue) => true;

    /// <summary>Fills <paramref name="config"/>, <see cref="ConfigSize"/> bytes, with the configuration space as it is now.</summary>
    public abstract void ReadConfig(Span<byte> config);

    /// <summary>The driver writes to the configuration space. The range is inside it.</summary>
    public virtual void WriteConfig(int offset, ReadOnlySpan<byte> data)
    {
    }

    /// <summary>The shared-memory regions; given addresses of the guest before it runs.</summary>
    public virtual IReadOnlyList<SharedMemoryWindow> SharedMemory => [];

    /// <summary>Where shared-memory region <paramref name="id"/> (VIRTIO 1.2 §2.10) is in the guest, or null if there is none.</summary>
    public virtual (GuestAddress Start, ulong Length)? FindSharedMemory(uint id)
    {
        foreach (SharedMemoryWindow window in SharedMemory)
        {
            if (window.Id == id)
                return (window.Start, window.Length);
        }
        return null;
    }

    /// <summary>The driver has accepted features (FEATURES_OK), and the device agrees or not (VIRTIO 1.2 §3.1.1). It is reset before it is asked
    /// again.</summary>
    /// <param name="features">What the driver accepted: a subset of <see cref="Features"/>.</param>
    /// <param name="memory">The guest's memory, which the driver is about to put queues into.</param>
    /// <returns>Whether the device can be started with them. If not, FEATURES_OK stays clear.</returns>
    public virtual bool AcceptFeatures(ulong features, GuestMemory memory) => true;

    /// <summary>The driver is ready (DRIVER_OK): the device begins to work its queues.</summary>
    /// <param name="features">What the driver accepted: a subset of <see cref="Features"/>.</param>
    /// <param name="memory">The guest's memory.</param>
    /// <param name="queues">The queues that the driver set up, by rising index; all values are checked.</param>
    /// <exception cref="VhostException">The device cannot; it is stopped, and its driver will see DEVICE_NEEDS_RESET.</exception>
    public abstract void Start(ulong features, GuestMemory memory, IReadOnlyList<VringConfig> queues);

    /// <summary>The device is reset: when this returns, nothing touches guest memory any more, unless <see cref="MayWrite"/> says so, and all
    /// state is as at power-on. Also called for a device that was never started.</summary>
    public abstract void Stop();

    /// <summary>The device cannot go on: it stops as <see cref="Stop"/> says, but its driver does not know yet and goes on until it resets the device.
    /// What the guest looks at without the device stays.</summary>
    public virtual void StandStill() => Stop();

    /// <summary>Whether somebody may still write to <paramref name="memory"/> although the device is stopped; see
    /// <see cref="IVhostBackend.MayWrite"/>.</summary>
    public virtual bool MayWrite(GuestMemory memory) => false;

    /// <summary>The driver has put something into a queue that is not delegated. On a vCPU's thread.</summary>
    public virtual void Notify(int queue)
    {
    }

    /// <summary>Frees what the device holds; after <see cref="Stop"/>.</summary>
    public abstract void Dispose();
}

/// <summary>What a device may ask of its transport, with <see cref="VirtioDevice.Sync"/> held.</summary>
public interface IVirtioHost
{
    /// <summary>The configuration space changed: the driver sees all of the change at once, and is interrupted.</summary>
    void ConfigChanged();

    /// <summary>A queue that is not delegated has used buffers.</summary>
    void InterruptQueue();

    /// <summary>The device cannot go on until its driver resets it (VIRTIO 1.2 §2.1.2). It is stopped.</summary>
    /// <param name="reason">For the log: one line.</param>
    void NeedsReset(string reason);
}

/// <summary>Device types (VIRTIO 1.2 §5).</summary>
public enum VirtioDeviceType : uint
{
    /// <summary>Network device.</summary>
    Net = 1,

    /// <summary>Block device.</summary>
    Block = 2,

    /// <summary>Console.</summary>
    Console = 3,

    /// <summary>Entropy source.</summary>
    Rng = 4,

    /// <summary>SCSI host.</summary>
    Scsi = 8,

    /// <summary>Graphics adapter.</summary>
    Gpu = 16,

    /// <summary>Input device.</summary>
    Input = 18,

    /// <summary>Socket device.</summary>
    Vsock = 19,

    /// <summary>Sound device.</summary>
    Sound = 25,

    /// <summary>File system.</summary>
    FileSystem = 26,

    /// <summary>I2C adapter.</summary>
    I2c = 34,

    /// <summary>CAN controller.</summary>
    Can = 36,

    /// <summary>GPIO controller.</summary>
    Gpio = 41,
}
