using Vmm.Vhost;

namespace Vmm.Devices.Bus;

/// <summary>An address space of device registers (ports, or MMIO). An access where there is no device reads as all ones, and
/// is logged once per address at Debug.</summary>
public sealed class IoBus(string name)
{
    private const int MaxLoggedAddresses = 1024;   // bounds what a guest that probes every address can make us remember

    private static readonly BoundedLog s_log = new("Vmm.Devices.Bus");

    private readonly HashSet<ulong> _logged = [];
    private Range[] _ranges = [];

    /// <summary>What the bus is called in messages.</summary>
    public string Name { get; } = name;

    /// <summary>Gives <paramref name="device"/> the addresses from <paramref name="start"/>, <paramref name="length"/> of them.
    /// Before the first vCPU runs.</summary>
    /// <exception cref="ArgumentException">The range is empty, wraps, or overlaps another device's.</exception>
    public void Attach(ulong start, ulong length, IBusDevice device)
    {
        if (length == 0 || start + (length - 1) < start)
            throw new ArgumentException($"empty or wrapping range 0x{start:x}+0x{length:x} on the {Name} bus", nameof(length));
        foreach (Range range in _ranges)
        {
            if (start <= range.Last && range.First <= start + (length - 1))
                throw new ArgumentException($"0x{start:x}+0x{length:x} on the {Name} bus is taken", nameof(start));
        }
        _ranges = [.. _ranges.Append(new Range(start, start + (length - 1), device)).OrderBy(range => range.First)];
    }

    /// <summary>Reads at <paramref name="address"/>; all ones where there is no device.</summary>
    public void Read(ulong address, Span<byte> data)
    {
        if (Find(address, data.Length) is { } range)
        {
            range.Device.Read(address - range.First, data);
            return;
        }
        data.Fill(0xFF);
        Unclaimed("read", address, data.Length);
    }

    /// <summary>Writes at <paramref name="address"/>; without effect where there is no device.</summary>
    public void Write(ulong address, ReadOnlySpan<byte> data)
    {
        if (Find(address, data.Length) is { } range)
        {
            range.Device.Write(address - range.First, data);
            return;
        }
        Unclaimed("write", address, data.Length);
    }

    /// <summary>Resets every device on the bus.</summary>
    public void Reset()
    {
        foreach (Range range in _ranges)
            range.Device.Reset();
    }

    private Range? Find(ulong address, int length)
    {
        // A handful of ranges: a linear search is as fast as any other, and its worst case is the same for every address.
        foreach (Range range in _ranges)
        {
            if (address >= range.First && address <= range.Last)
                return (ulong)(length - 1) <= range.Last - address ? range : null;
        }
        return null;
    }

    private void Unclaimed(string verb, ulong address, int length)
    {
        if (!s_log.IsDebugEnabled)
            return;
        lock (_logged)
        {
            if (_logged.Count >= MaxLoggedAddresses || !_logged.Add(address))
                return;
        }
        s_log.Debug("{Bus}: {Verb} of {Length} bytes at {Address}: no device", Name, verb, length, $"0x{address:x}");
    }

    private sealed record Range(ulong First, ulong Last, IBusDevice Device);
}
