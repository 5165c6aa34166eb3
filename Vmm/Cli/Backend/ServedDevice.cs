using Vmm.Devices.Backends;
using Vmm.Vhost.User.Backend;

namespace Vmm.Cli.Backend;

/// <summary>A device that is open, and what serving it takes.</summary>
/// <param name="Device">The device, which is to be disposed of.</param>
/// <param name="Confinement">What its process still needs.</param>
/// <param name="Message">What the user is to be told, as a line on standard output.</param>
/// <param name="Refresh">What SIGUSR1 makes it do, on any thread: look again at what it serves.</param>
/// <param name="Prepare">What is done with the process once the socket is there, and before it is confined.</param>
internal sealed record ServedDevice(VhostUserDevice Device, Confinement Confinement, string? Message = null, Action? Refresh = null, Action? Prepare = null);
