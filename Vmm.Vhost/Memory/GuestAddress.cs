namespace Vmm.Vhost.Memory;

/// <summary>A guest-physical address (GPA), in bytes. Arithmetic throws <see cref="OverflowException"/> rather than wrap.</summary>
public readonly record struct GuestAddress(ulong Value) : IComparable<GuestAddress>
{
    /// <summary>The address <paramref name="bytes"/> further on.</summary>
    public static GuestAddress operator +(GuestAddress address, ulong bytes) => new(checked(address.Value + bytes));

    /// <summary>The distance in bytes; <paramref name="left"/> must not be the lower one.</summary>
    public static ulong operator -(GuestAddress left, GuestAddress right) => checked(left.Value - right.Value);

    /// <summary>Whether <paramref name="left"/> is lower.</summary>
    public static bool operator <(GuestAddress left, GuestAddress right) => left.Value < right.Value;

    /// <summary>Whether <paramref name="left"/> is higher.</summary>
    public static bool operator >(GuestAddress left, GuestAddress right) => left.Value > right.Value;

    /// <summary>Whether <paramref name="left"/> is lower or the same.</summary>
    public static bool operator <=(GuestAddress left, GuestAddress right) => left.Value <= right.Value;

    /// <summary>Whether <paramref name="left"/> is higher or the same.</summary>
    public static bool operator >=(GuestAddress left, GuestAddress right) => left.Value >= right.Value;

    /// <summary>The address as the named form of <c>+</c>.</summary>
    public GuestAddress Add(ulong bytes) => this + bytes;

    /// <summary>The distance as the named form of <c>-</c>.</summary>
    public ulong Subtract(GuestAddress other) => this - other;

    /// <inheritdoc/>
    public int CompareTo(GuestAddress other) => Value.CompareTo(other.Value);

    /// <inheritdoc/>
    public override string ToString() => $"0x{Value:x}";
}
