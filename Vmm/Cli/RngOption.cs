using Vmm.Cli.Backend;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.VhostUser;

namespace Vmm.Cli;

/// <summary>The value of <c>--rng</c>: <c>src=PATH[,max_bytes_per_second=N]</c>.</summary>
internal static class RngOption
{
    /// <summary>The option's name.</summary>
    public const string Name = "--" + Option;

    /// <summary>The same without its dashes.</summary>
    public const string Option = "rng";

    /// <summary>The device that <paramref name="text"/> describes.</summary>
    /// <exception cref="UsageException">The value is malformed.</exception>
    public static GenericDeviceOptions Parse(string text)
    {
        KeyValueList list = KeyValueList.Parse(Name, text, "src", "max_bytes_per_second");
        OptionValue source = list.Find("src") ?? throw new UsageException($"{Name}: '{text}' has no source: write src=/dev/urandom");
        string[] limit = list.Find("max_bytes_per_second") is { } most
            ? ["--max-bytes-per-second", $"{NumberValue.Parse(most, 1, RngBackendOptions.MostBytesPerSecond)}"] : [];
        return new GenericDeviceOptions
        {
            Kind = DeviceKind.Of(VirtioDeviceType.Rng),
            Peer = new VhostUserPeer { Program = OwnBackend.Serve("rng", $"src={source.Text}", ["--source", source.Text, .. limit]) },
        };
    }
}
