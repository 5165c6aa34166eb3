using System.Buffers.Binary;
using System.Globalization;

namespace Vmm.Acpi;

/// <summary>Compressed Plug-and-Play ids, such as PNP0501 (ACPI 6.5 §19.3.4, "EISAID").</summary>
internal static class EisaId
{
    /// <summary>The integer that stands for <paramref name="id"/>: three capitals, then four hexadecimal digits.</summary>
    /// <exception cref="ArgumentException">It is not such an id.</exception>
    public static uint Compress(string id)
    {
        if (id.Length != 7 || id.AsSpan(0, 3).ContainsAnyExceptInRange('A', 'Z')
            || !ushort.TryParse(id.AsSpan(3), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out ushort product))
        {
            throw new ArgumentException($"'{id}' is not an EISA id", nameof(id));
        }
        // Five bits a letter, A is 1; the whole is big-endian, and AML's integers are not.
        int vendor = ((id[0] - '@') << 10) | ((id[1] - '@') << 5) | (id[2] - '@');
        return BinaryPrimitives.ReverseEndianness(((uint)vendor << 16) | product);
    }
}
