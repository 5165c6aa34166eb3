using CommandLine;
using Vmm.Devices.Backends;
using Vmm.Devices.Backends.Vsock;
using Vmm.Vhost.Kernel;
using Vmm.Vhost.Native;

namespace Vmm.Cli.Backend;

/// <summary>The options of <c>vmm backend vsock</c>.</summary>
[Verb("vsock", HelpText = "Sockets between host and guest, as Unix sockets on the host.")]
internal sealed class VsockBackendOptions : BackendOptions
{
    /// <summary>The option that says where the guest's connections go.</summary>
    public const string GuestConnectionsName = "--guest-connections";

    private const int MaxPortSuffix = 11;   // _4294967295

    [Option("uds-path", MetaValue = "PATH", HelpText = "Programs of the host connect to PATH and say 'CONNECT port'; the guest's connections to "
        + "the host's port N go to whoever listens on PATH_N.")]
    public string? UdsPath { get; set; }

    [Option("guest-connections", MetaValue = "connect|accept", HelpText = "How the guest's connections to the host's port N are made: this process connects to "
        + "PATH_N; or it connects to nobody, and a program that has connected to PATH and said 'ACCEPT N' gets the next one (default: connect).")]
    public string? GuestConnections { get; set; }

    [Option("guest-cid", MetaValue = "N", HelpText = "The guest's address, 3 or more (default: 3).")]
    public string? GuestCid { get; set; }

    /// <inheritdoc/>
    public override Func<ServedDevice> Read()
    {
        string path = RequirePath("--uds-path", UdsPath);
        bool connects = GuestConnections is null || ParseConnects(new OptionValue(GuestConnectionsName, null, GuestConnections));
        CheckPath(new OptionValue("--uds-path", null, path), connects);
        if (SocketPath is { Length: > 0 } socket && RealPath.Absolute(socket) == RealPath.Absolute(path))
            throw new OptionValue("--uds-path", null, path).Refuse("is --socket-path, too: the front-end has one socket and programs of the host another");
        uint cid = GuestCid is string text
            ? (uint)NumberValue.Parse(new OptionValue("--guest-cid", null, text), VhostVsock.MinCid, VhostVsock.MaxCid)
            : VhostVsock.MinCid;
        return Opened("--uds-path", () => new ServedDevice(
            new VsockBackend(path, cid, connects),
            new Confinement { SocketDirectories = connects ? [System.IO.Path.GetDirectoryName(RealPath.Absolute(path))!] : [] }));
    }

    /// <summary>Whether the back-end connects to host programs; if not, they accept the guest's connections.</summary>
    /// <exception cref="UsageException">The value is neither.</exception>
    public static bool ParseConnects(OptionValue value) => Choice.Parse(value, ("connect", true), ("accept", false));

    /// <summary>Whether the path is short enough, also with a port behind it where that is connected to.</summary>
    /// <exception cref="UsageException">It is not.</exception>
    public static void CheckPath(OptionValue path, bool connects)
    {
        if (ByteText.Encode(path.Text).Length > UnixSocket.MaxPathBytes - (connects ? MaxPortSuffix : 0))
            throw path.Refuse($"is too long: {(connects ? "with a port behind it " : "")}a socket's path has at most {UnixSocket.MaxPathBytes} bytes");
    }
}
