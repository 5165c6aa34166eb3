using Vmm.Devices.Backends.Net;

namespace Vmm.Cli.Exec;

/// <summary>The network devices of a guest of <c>vmm exec</c>: those of <c>--net</c>, and one on the host's own network where <c>--port</c> wants it.</summary>
internal static class ExecNetwork
{
    /// <summary>The option for a port that leads into the guest.</summary>
    public const string PortOption = "--port";

    private const string User = "user";

    /// <summary>The devices, with the guest's addresses, in the order of their interfaces.</summary>
    /// <exception cref="UsageException">A value is wrong.</exception>
    public static IReadOnlyList<GuestNetwork> Devices(ExecOptions options)
    {
        string[] devices = RepeatableOptions.Values(options.Net);
        string[] ports = RepeatableOptions.Values(options.Port);
        if (devices.Count(NetOption.IsUser) > 1)
            throw new UsageException($"{NetOption.Name}: {User} is given more than once: the guest would have the same address twice");
        if (ports.Length > 0)
        {
            string list = string.Join('+', ports);
            IReadOnlyList<ForwardedPort> forwarded = PortValue.ParseAll(new OptionValue(PortOption, null, list));
            int user = Array.FindIndex(devices, NetOption.IsUser);
            if (user < 0 || !devices[user].Contains(",host=", StringComparison.Ordinal))
                PortValue.RefuseUdp(forwarded, PortOption, $"{NetOption.Name} {User},host=on");
            if (user >= 0 && devices[user].Contains(",port=", StringComparison.Ordinal))
                throw new UsageException($"{PortOption}: cannot stand beside port= of {NetOption.Name}: write all of them in one place");
            if (user < 0)
                devices = [.. devices, $"{User},port={list}"];
            else
                devices[user] += $",port={list}";
        }
        return [.. devices.Select(GuestNetwork.Parse)];
    }
}
