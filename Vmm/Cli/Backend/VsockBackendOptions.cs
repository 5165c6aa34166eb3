using System.Text;
using CommandLine;
using Vmm.Devices.Backends;
using Vmm.Devices.Backends.Vsock;
using Vmm.Vhost.Native;

namespace Vmm.Cli.Backend;

/// <summary>The options of <c>vmm backend vsock</c>.</summary>
[Verb("vsock", HelpText = "Sockets between host and guest, as Unix sockets on the host.")]
internal sealed class VsockBackendOptions : BackendOptions
{
    private const int MaxPortSuffix = 11;   // _4294967295

    [Option("uds-path", MetaValue = "PATH", HelpText = "Programs of the host connect to PATH and say 'CONNECT port'; the guest's connections to "
        + "the host's port N go to whoever listens on PATH_N.")]
    public string? UdsPath { get; set; }

    [Option("guest-cid", MetaValue = "N", HelpText = "The guest's address, 3 or more (default: 3).")]
    public string? GuestCid { get; set; }

    /// <inheritdoc/>
    public override Func<ServedDevice> Read()
    {
        string path = RequirePath("--uds-path", UdsPath);
        CheckPath(new OptionValue("--uds-path", null, path));
        if (SocketPath is { Length: > 0 } socket && System.IO.Path.GetFullPath(socket) == System.IO.Path.GetFullPath(path))
            throw new OptionValue("--uds-path", null, path).Refuse("is --socket-path, too: the front-end has one socket and programs of the host another");
        uint cid = GuestCid is string text
            ? (uint)NumberValue.Parse(new OptionValue("--guest-cid", null, text), VsockBackend.MinCid, VsockBackend.MaxCid)
            : VsockBackend.MinCid;
        return Opened("--uds-path", () => new ServedDevice(
            new VsockBackend(path, cid),
            new Confinement { SocketDirectories = [System.IO.Path.GetDirectoryName(System.IO.Path.GetFullPath(path))!] }));
    }

    /// <summary>Whether a port fits behind the path.</summary>
    /// <exception cref="UsageException">It does not.</exception>
    public static void CheckPath(OptionValue path)
    {
        if (Encoding.UTF8.GetByteCount(path.Text) > UnixSocket.MaxPathBytes - MaxPortSuffix)
            throw path.Refuse($"is too long: with a port behind it a socket's path has at most {UnixSocket.MaxPathBytes} bytes");
    }
}
