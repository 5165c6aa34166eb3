using Vmm.Cli.Backend;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.VhostUser;

namespace Vmm.Cli;

/// <summary>The value of <c>--console</c>: <c>pty</c>, or <c>file=PATH</c>.</summary>
internal static class ConsoleOption
{
    /// <summary>The option's name.</summary>
    public const string Name = "--" + Option;

    /// <summary>The same without its dashes.</summary>
    public const string Option = "console";

    private const string FileKey = "file=";

    /// <summary>The device that <paramref name="text"/> describes.</summary>
    /// <exception cref="UsageException">The value is malformed.</exception>
    public static GenericOptions Parse(string text)
    {
        // A path is the whole rest, as with --serial.
        DaemonProgram program = text switch
        {
            "pty" => OwnBackend.Serve("console", text, ["--path", "pty"], Announce),
            _ when text.StartsWith(FileKey, StringComparison.Ordinal) && text.Length > FileKey.Length && text != FileKey + "pty" =>
                OwnBackend.Serve("console", text, ["--path", text[FileKey.Length..]]),
            _ => throw new OptionValue(Name, null, text).Refuse("is not allowed: choose one of pty, file=PATH"),
        };
        return new GenericOptions { Kind = DeviceKind.Of(VirtioDeviceType.Console), Peer = new VhostUserPeer { Program = program } };
    }

    // Standard output is the serial port's.
    private static void Announce(string line) => StandardWriter.Error().WriteLine($"vmm: {Name}: the guest's console is {OneLine.Of(line)}");
}
