using Vmm.Devices.Spawning;
using Vmm.Vhost;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Virtio;

/// <summary>A device as the user asked for it.</summary>
public abstract record VirtioDeviceOptions
{
    /// <summary>The option that messages about it begin with, where they cannot name it better.</summary>
    public virtual string Label => "a device";

    /// <summary>The numbers of the descriptors that it takes over from this process, which has inherited them; they are then its own. No two devices may have the
    /// same.</summary>
    public virtual IReadOnlyList<int> InheritedDescriptors => [];

    /// <summary>The same device, for which a spawner starts programs and connects to sockets, if it does such things.</summary>
    /// <param name="spawner">Gives the spawner; called only if it is needed.</param>
    public virtual VirtioDeviceOptions With(Func<ISpawner> spawner) => this;

    /// <summary>Opens everything the device needs of the host, so that what is missing shows before the guest boots.</summary>
    /// <param name="events">Where the device waits for what its back-end or the host has to say.</param>
    /// <param name="cancellation">Ends the wait for a back-end that is not there yet.</param>
    /// <exception cref="VhostException">The host cannot give it; the message names the option, says why and what to do.</exception>
    /// <exception cref="OperationCanceledException">It was not waited for any longer.</exception>
    public abstract VirtioDevice Open(EventLoop events, CancellationToken cancellation = default);
}
