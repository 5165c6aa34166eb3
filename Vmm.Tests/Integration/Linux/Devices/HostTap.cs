namespace Vmm.Tests.Integration.Linux.Devices;

/// <summary>A tap of the host's with an address, 10.9.N.1/24, gone when disposed. The guest's address is 10.9.N.2.</summary>
internal sealed class HostTap : IDisposable
{
    public HostTap(int number, bool multiQueue = false)
    {
        Name = $"vmtest{number}";
        Address = $"10.9.{number}.1";
        GuestAddress = $"10.9.{number}.2";
        HostCommand.Run("ip", ["tuntap", "add", Name, "mode", "tap", "vnet_hdr", .. multiQueue ? ["multi_queue"] : Array.Empty<string>()]);
        HostCommand.Run("ip", "addr", "add", $"{Address}/24", "dev", Name);
        HostCommand.Run("ip", "link", "set", Name, "up");
    }

    public string Name { get; }

    public string Address { get; }

    public string GuestAddress { get; }

    /// <summary>Packets that the interface has given to the guest and taken from it.</summary>
    public long Packets => Counter("tx_packets") + Counter("rx_packets");

    public void Dispose() => HostCommand.TryRun("ip", "link", "del", Name);

    private long Counter(string name) => long.Parse(File.ReadAllText($"/sys/class/net/{Name}/statistics/{name}"), null);
}
