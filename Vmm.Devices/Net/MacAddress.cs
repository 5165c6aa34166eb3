using System.Globalization;

namespace Vmm.Devices.Net;

/// <summary>An Ethernet address, 6 bytes.</summary>
public readonly record struct MacAddress
{
    /// <summary>Bytes of an address.</summary>
    public const int Size = 6;

    private readonly ulong _value;   // the first byte is the highest of the lower 48 bits

    private MacAddress(ulong value) => _value = value;

    /// <summary>The address in the first 6 bytes of <paramref name="bytes"/>.</summary>
    public MacAddress(ReadOnlySpan<byte> bytes)
    {
        foreach (byte part in bytes[..Size])
            _value = (_value << 8) | part;
    }

    /// <summary>Everyone's address.</summary>
    public static MacAddress Broadcast => new(0xFFFF_FFFF_FFFF);

    /// <summary>Whether it names a group, the broadcast address too, and so no interface.</summary>
    public bool IsMulticast => (_value >> 40 & 1) != 0;

    /// <summary>Whether it is all zeros.</summary>
    public bool IsZero => _value == 0;

    /// <summary>A random unicast address that is nobody's: the "locally administered" bit is set (IEEE 802).</summary>
    public static MacAddress Random()
    {
        Span<byte> bytes = stackalloc byte[Size];
        System.Random.Shared.NextBytes(bytes);   // no secret, and the library's cryptography would want OpenSSL
        bytes[0] = (byte)((bytes[0] & ~1) | 2);
        return new MacAddress(bytes);
    }

    /// <summary>Reads the form 02:00:00:12:34:56.</summary>
    public static bool TryParse(ReadOnlySpan<char> text, out MacAddress address)
    {
        address = default;
        if (text.Length != 3 * Size - 1)
            return false;
        ulong value = 0;
        for (int i = 0; i < Size; i++)
        {
            if ((i > 0 && text[3 * i - 1] != ':')
                || !byte.TryParse(text.Slice(3 * i, 2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out byte part))
            {
                return false;
            }
            value = (value << 8) | part;
        }
        address = new MacAddress(value);
        return true;
    }

    /// <summary>Writes the address to the first 6 bytes of <paramref name="target"/>.</summary>
    public void CopyTo(Span<byte> target)
    {
        for (int i = 0; i < Size; i++)
            target[i] = (byte)(_value >> (8 * (Size - 1 - i)));
    }

    /// <inheritdoc/>
    public override string ToString()
    {
        Span<byte> bytes = stackalloc byte[Size];
        CopyTo(bytes);
        return $"{bytes[0]:x2}:{bytes[1]:x2}:{bytes[2]:x2}:{bytes[3]:x2}:{bytes[4]:x2}:{bytes[5]:x2}";
    }
}
