using Vmm.Devices.Virtio.VhostUser;

namespace Vmm.Cli.Backend;

/// <summary>This program as the back-end of its own devices, in a process for each.</summary>
internal static class OwnBackend
{
    /// <summary>What serves a device.</summary>
    /// <param name="device">Which of <c>vmm backend</c>.</param>
    /// <param name="label">The device in messages, behind its option.</param>
    /// <param name="arguments">Its options.</param>
    /// <param name="firstLine">Takes the first line that it writes.</param>
    public static DaemonProgram Serve(string device, string label, IReadOnlyList<string> arguments, Action<string>? firstLine = null) =>
        Serve(device, label, () => arguments, firstLine);

    /// <summary>The same with options that are decided when the device is opened.</summary>
    /// <inheritdoc cref="Serve(string, string, IReadOnlyList{string}, Action{string}?)"/>
    public static DaemonProgram Serve(string device, string label, Func<IReadOnlyList<string>> arguments, Action<string>? firstLine = null)
    {
        string[] common = ["--once", "--log-level", Logging.Level.Name.ToLowerInvariant()];
        return new DaemonProgram(
            $"vmm backend {device}", OwnProgram.Path, socket => [.. OwnProgram.Arguments, "backend", device, "--fd", $"{socket}", .. common, .. arguments()])
        {
            Label = label,
            IsOwn = true,
            FirstLine = firstLine,
        };
    }
}
