using Vmm.Vhost;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Virtio.VhostUser;

/// <summary>A virtio-fs daemon of a device's own.</summary>
/// <param name="name">The device, for messages.</param>
/// <param name="source">What it shares.</param>
/// <param name="events">Where is waited for what it says.</param>
/// <exception cref="VhostException">The directory to share, the program, or a place for the socket is missing.</exception>
internal sealed class VirtiofsDaemon(string name, FsSource source, EventLoop events) : BackendDaemon(name, Find(name, source), events)
{
    private static DaemonProgram Find(string name, FsSource source)
    {
        if (!Directory.Exists(source.Path))
            throw new VhostException($"{name}: {source.Path} is no directory: make it first, or give another");
        source = source with { Path = Path.GetFullPath(source.Path) };   // the daemon's current directory is another once it is confined
        VirtiofsProgram program = VirtiofsProgram.Find(name);
        return new DaemonProgram(program.Path, program.Path, socket => program.Arguments(source, socket));
    }
}
