namespace Vmm.Vhost.Native;

/// <summary>An instruction of the kernel's classic BPF: struct sock_filter of linux/filter.h.</summary>
/// <param name="Code">What it does (linux/bpf_common.h).</param>
/// <param name="IfTrue">How many instructions a comparison skips that holds.</param>
/// <param name="IfFalse">How many it skips otherwise.</param>
/// <param name="Operand">The number that it works with.</param>
internal readonly record struct BpfInstruction(ushort Code, byte IfTrue, byte IfFalse, uint Operand)
{
    /// <summary>Loads 32 or 16 bits from the place <see cref="Operand"/>.</summary>
    public const ushort LoadWord = 0x20, LoadHalfWord = 0x28;

    /// <summary>Compares what was loaded with <see cref="Operand"/>.</summary>
    public const ushort JumpEqual = 0x15, JumpGreaterEqual = 0x35;

    /// <summary>Keeps those bits of what was loaded that are in <see cref="Operand"/>.</summary>
    public const ushort And = 0x54;

    /// <summary>Ends the program with the result <see cref="Operand"/>.</summary>
    public const ushort Return = 0x06;
}

/// <summary>A program as the kernel takes it: struct sock_fprog of linux/filter.h.</summary>
internal unsafe struct BpfProgram
{
    public ushort Length;
    public BpfInstruction* Instructions;
}
