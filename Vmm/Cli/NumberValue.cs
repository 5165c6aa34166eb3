using System.Globalization;

namespace Vmm.Cli;

/// <summary>A whole number on the command line, decimal or 0x and hexadecimal.</summary>
internal static class NumberValue
{
    /// <summary>The number, from <paramref name="min"/> to <paramref name="max"/>.</summary>
    /// <exception cref="UsageException">It is none, or out of range.</exception>
    public static ulong Parse(OptionValue value, ulong min, ulong max)
    {
        bool isHex = value.Text.StartsWith("0x", StringComparison.OrdinalIgnoreCase);
        bool isNumber = isHex
            ? ulong.TryParse(value.Text.AsSpan(2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out ulong number)
            : ulong.TryParse(value.Text, NumberStyles.None, CultureInfo.InvariantCulture, out number);
        return isNumber && number >= min && number <= max ? number : throw value.Refuse($"is not a number from {min} to {max}");
    }

    /// <summary>An inherited file descriptor: from 3 on, because the standard streams are before.</summary>
    /// <exception cref="UsageException">It is none.</exception>
    public static int ParseDescriptor(OptionValue value) => (int)Parse(value, 3, int.MaxValue);

    /// <summary>A queue's size: a power of two from 2 to 32768 (VIRTIO 1.2 §2.7).</summary>
    /// <exception cref="UsageException">It is none.</exception>
    public static int ParseQueueSize(OptionValue value)
    {
        ulong size = Parse(value, 2, 32768);
        return ulong.IsPow2(size) ? (int)size : throw value.Refuse("is not a power of two");
    }
}
