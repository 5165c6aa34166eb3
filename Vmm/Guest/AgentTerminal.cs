using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.VhostUser;
using Vmm.Machine;
using Vmm.Vhost.Native;

namespace Vmm.Guest;

/// <summary>The host's end of the console by which the agent speaks in a guest whose kernel has no vsock: a pseudo-terminal of <c>vmm backend console</c>.</summary>
internal sealed class AgentTerminal
{
    /// <summary>What the back-end keeps while this process is not heard, in bytes. The protocol has no way to tell that something is missing: this is more than
    /// the agent sends without being answered, which is two windows, at the worst in frames of one byte.</summary>
    public const int Kept = 8 << 20;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    private readonly object _lock = new();
    private string? _path;

    /// <summary>The same machine, whose console tells this object of its terminal and not the user.</summary>
    public MachineConfig Attach(MachineConfig config) => config with
    {
        Devices = [.. config.Devices.Select(device => device is GenericDeviceOptions { Kind.Type: VirtioDeviceType.Console, Peer.Program: { } program } console
            ? console with { Peer = console.Peer with { Program = program with { FirstLine = Announce } } }
            : device)],
    };

    /// <summary>Opens it, once the machine has its devices and before the process is confined.</summary>
    /// <exception cref="VmmException">The back-end has not told of it.</exception>
    /// <exception cref="ErrnoException">It cannot be opened.</exception>
    public FileDescriptor Open()
    {
        long end = Environment.TickCount64 + (long)s_patience.TotalMilliseconds;
        lock (_lock)
        {
            while (_path is null)
            {
                long left = end - Environment.TickCount64;
                if (left <= 0 || !Monitor.Wait(_lock, (int)left))
                    throw new VmmException($"the back-end of the guest's console has not told of its terminal within {s_patience.TotalSeconds} s");
            }
        }
        return FileDescriptor.Open(_path, OpenMode.ReadWriteNonBlocking);
    }

    private void Announce(string path)
    {
        lock (_lock)
        {
            _path = path;
            Monitor.Pulse(_lock);
        }
    }
}
