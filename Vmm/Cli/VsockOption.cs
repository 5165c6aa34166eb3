using Vmm.Devices.Virtio.Vsock;
using Vmm.Vhost.Kernel;

namespace Vmm.Cli;

/// <summary>The value of <c>--vsock</c>: <c>cid=N</c>.</summary>
internal static class VsockOption
{
    /// <summary>The option's name.</summary>
    public const string Name = "--" + Option;

    /// <summary>The same without its dashes.</summary>
    public const string Option = "vsock";

    /// <summary>The device that <paramref name="text"/> describes.</summary>
    /// <exception cref="UsageException">The value is malformed.</exception>
    public static VsockOptions Parse(string text)
    {
        OptionValue cid = KeyValueList.Parse(Name, text, "cid").Find("cid")!.Value;
        return new VsockOptions { Cid = (uint)NumberValue.Parse(cid, VhostVsock.MinCid, VhostVsock.MaxCid) };
    }
}
