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

    private readonly TaskCompletionSource<string> _path = new();

    /// <summary>The same machine, whose console tells this object of its terminal and not the user.</summary>
    public MachineConfig Attach(MachineConfig config) => config with
    {
        Devices = [.. config.Devices.Select(device => device is GenericDeviceOptions { Kind.Type: VirtioDeviceType.Console, Peer.Program: { } program } console
            ? console with { Peer = console.Peer with { Program = program with { FirstLine = Announce } } }
            : device)],
    };

    /// <summary>Opens it, once the machine has its devices and before the process is confined.</summary>
    /// <param name="cancellation">Ends the wait for the back-end, which may take 30 s.</param>
    /// <exception cref="VmmException">The back-end has not told of it.</exception>
    /// <exception cref="ErrnoException">It cannot be opened.</exception>
    /// <exception cref="OperationCanceledException">The wait has been ended.</exception>
    public FileDescriptor Open(CancellationToken cancellation) => _path.Task.Wait((int)s_patience.TotalMilliseconds, cancellation)
        ? FileDescriptor.Open(_path.Task.Result, OpenMode.ReadWriteNonBlocking)
        : throw new VmmException($"the back-end of the guest's console has not told of its terminal within {s_patience.TotalSeconds} s");

    // A back-end that is started again has another terminal, which nobody opens.
    private void Announce(string path) => _path.TrySetResult(path);
}
