namespace Vmm.Vhost.Native.Confinement;

/// <summary>A system call that threads may make, and the arguments with which they may.</summary>
/// <param name="Call">The call.</param>
/// <param name="Arguments">The arguments in words, as docs/security.md has them; empty where they do not matter.</param>
/// <param name="Conditions">What must hold of them, all at once.</param>
public sealed record SystemCallRule(SystemCallNumber Call, string Arguments = "", params IReadOnlyList<ArgumentCondition> Conditions)
{
    /// <summary>A call whose arguments do not matter.</summary>
    public static implicit operator SystemCallRule(SystemCallNumber call) => new(call);

    /// <summary>ioctl(2) with one of <paramref name="requests"/>.</summary>
    public static SystemCallRule Requests(params IReadOnlyList<IoctlRequest> requests) => new(
        SystemCallNumber.Ioctl,
        $"request is {string.Join(" or ", requests.Select(request => request.Name))}",
        ArgumentCondition.IsOneOf(1, [.. requests.Select(request => request.Number)]));
}

/// <summary>What must hold of an argument of a system call: its lower 32 bits, which are all that the kernel looks at for an int. A pointer can be
/// compared with null, but what it points at cannot be seen.</summary>
/// <param name="Index">Which argument, from 0.</param>
/// <param name="Mask">The bits that count.</param>
/// <param name="Values">The values that they may have: one of these.</param>
/// <param name="IsWhole">Whether the upper 32 bits must be zero.</param>
public readonly record struct ArgumentCondition(int Index, uint Mask, IReadOnlyList<uint> Values, bool IsWhole = false)
{
    /// <summary>It is one of <paramref name="values"/>.</summary>
    public static ArgumentCondition IsOneOf(int index, params IReadOnlyList<uint> values) => new(index, uint.MaxValue, values);

    /// <summary>Its bits in <paramref name="mask"/> are <paramref name="value"/>.</summary>
    public static ArgumentCondition HasBits(int index, uint mask, uint value) => new(index, mask, [value]);

    /// <summary>It is a null pointer.</summary>
    public static ArgumentCondition IsNull(int index) => new(index, uint.MaxValue, [0], IsWhole: true);
}
