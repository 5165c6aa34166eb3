using Vmm.Devices.Virtio.Scsi;

namespace Vmm.Cli;

/// <summary>The value of <c>--scsi</c>: <c>wwpn=naa.HEX[,queues=N]</c>.</summary>
internal static class ScsiOption
{
    /// <summary>The option's name.</summary>
    public const string Name = "--" + Option;

    /// <summary>The same without its dashes.</summary>
    public const string Option = "scsi";

    private const string Prefix = "naa.";
    private const int Digits = 16;

    /// <summary>The device that <paramref name="text"/> describes.</summary>
    /// <exception cref="UsageException">The value is malformed.</exception>
    public static ScsiDeviceOptions Parse(string text)
    {
        KeyValueList list = KeyValueList.Parse(Name, text, "wwpn", "queues");
        OptionValue wwpn = list.Find("wwpn") ?? throw new UsageException($"{Name}: '{text}' names no target: write wwpn=naa.HEX");
        if (!wwpn.Text.StartsWith(Prefix, StringComparison.Ordinal) || wwpn.Text.Length != Prefix.Length + Digits
            || !wwpn.Text[Prefix.Length..].All(char.IsAsciiHexDigit))
        {
            throw wwpn.Refuse($"is not a port name: write {Prefix} and {Digits} hexadecimal digits, as in /sys/kernel/config/target/vhost");
        }
        return new ScsiDeviceOptions
        {
            Wwpn = wwpn.Text,
            Queues = list.Find("queues") is { } queues ? (int)NumberValue.Parse(queues, 1, ScsiDeviceOptions.MaxQueues) : 1,
        };
    }
}
