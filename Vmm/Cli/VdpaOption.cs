using Vmm.Devices.Virtio.Vdpa;

namespace Vmm.Cli;

/// <summary>The value of <c>--vdpa</c>: <c>path=/dev/vhost-vdpa-N[,queues=N]</c>.</summary>
internal static class VdpaOption
{
    /// <summary>The option's name.</summary>
    public const string Name = "--" + Option;

    /// <summary>The same without its dashes.</summary>
    public const string Option = "vdpa";

    private const int MaxQueues = 256;

    /// <summary>The device that <paramref name="text"/> describes.</summary>
    /// <exception cref="UsageException">The value is malformed.</exception>
    public static VdpaDeviceOptions Parse(string text)
    {
        KeyValueList list = KeyValueList.Parse(Name, text, "path", "queues");
        OptionValue path = list.Find("path") ?? throw new UsageException($"{Name}: '{text}' names no device: write path=/dev/vhost-vdpa-N");
        return new VdpaDeviceOptions
        {
            Path = path.Text,
            Queues = list.Find("queues") is { } queues ? (int)NumberValue.Parse(queues, 1, MaxQueues) : null,
        };
    }
}
