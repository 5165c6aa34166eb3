using System.Numerics;

namespace Vmm.Vhost;

/// <summary>Rounds sizes and addresses to multiples of a power of two.</summary>
public static class Align
{
    /// <summary>The smallest multiple of <paramref name="unit"/> that is not less than <paramref name="value"/>.</summary>
    /// <param name="value">The number. The result wraps where it does not fit the type: the caller has checked that.</param>
    /// <param name="unit">A power of two.</param>
    public static T Up<T>(T value, T unit)
        where T : IBinaryInteger<T> => unchecked(value + (unit - T.One)) & ~(unit - T.One);

    /// <summary>The largest multiple of <paramref name="unit"/> that is not more than <paramref name="value"/>.</summary>
    /// <param name="value">The number.</param>
    /// <param name="unit">A power of two.</param>
    public static T Down<T>(T value, T unit)
        where T : IBinaryInteger<T> => value & ~(unit - T.One);
}
