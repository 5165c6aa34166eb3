using Vmm.Cli.Backend;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.VhostUser;

namespace Vmm.Cli;

/// <summary>The value of <c>--console</c>: <c>pty[,keep=SIZE]</c>, or <c>file=PATH[,truncate=on]</c>.</summary>
internal static class ConsoleOption
{
    /// <summary>The option's name.</summary>
    public const string Name = "--" + Option;

    /// <summary>The same without its dashes.</summary>
    public const string Option = "console";

    private const string KeepPrefix = "pty,keep=";

    /// <summary>The device that <paramref name="text"/> describes.</summary>
    /// <exception cref="UsageException">The value is malformed.</exception>
    public static GenericDeviceOptions Parse(string text)
    {
        DaemonProgram program = text switch
        {
            "pty" => OwnBackend.Serve("console", text, ["--path", "pty"], Announce),
            _ when text.StartsWith(KeepPrefix, StringComparison.Ordinal) => OwnBackend.Serve(
                "console", text, ["--path", "pty", "--keep", $"{ConsoleBackendOptions.ParseKeep(new OptionValue(Name, "keep", text[KeepPrefix.Length..]))}"], Announce),
            _ when OutputFileValue.Fits(text) => IntoFile(text, OutputFileValue.Parse(Name, text)),
            _ => throw new OptionValue(Name, null, text).Refuse("is not allowed: choose one of pty, file=PATH"),
        };
        return new GenericDeviceOptions { Kind = DeviceKind.Of(VirtioDeviceType.Console), Peer = new VhostUserPeer { Program = program } };
    }

    // The back-end takes the word "pty" for a terminal.
    private static DaemonProgram IntoFile(string text, OutputFileValue file) => file.Path != "pty"
        ? OwnBackend.Serve("console", text, ["--path", file.Path]) with { FirstArguments = file.Truncate ? ["--truncate"] : [] }
        : throw new OptionValue(Name, null, text).Refuse("is not allowed: choose one of pty, file=./pty");

    // Standard output is the serial port's.
    private static void Announce(string line) => StandardWriter.Error().WriteLine($"vmm: {Name}: the guest's console is {OneLine.Of(line)}");
}
