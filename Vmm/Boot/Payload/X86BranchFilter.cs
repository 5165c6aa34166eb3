using System.Buffers.Binary;
using System.Numerics;

namespace Vmm.Boot.Payload;

/// <summary>Undoes the x86 branch filter ("BCJ"): before packing, the 32-bit operands of CALL and JMP were made absolute, so that calls of
/// one function look alike. Works on the whole of a block at once, in place (LZMA SDK, Bra86.c, says which bytes were taken for branches).</summary>
internal static class X86BranchFilter
{
    private const byte Call = 0xE8;
    private const byte Jump = 0xE9;
    private const int OperandSize = 4;

    /// <summary>Makes the operands in <paramref name="data"/> relative again; it begins at stream position 0.</summary>
    public static void Decode(Span<byte> data)
    {
        // The opcode bytes less than four bytes back that were no branch: bit n is set if there is one n + 1 bytes back.
        uint history = 0;
        int next = 0;        // where to look on
        int last = -1;       // where the last opcode byte was
        while (next < data.Length - OperandSize)
        {
            int step = data[next..^OperandSize].IndexOfAny(Call, Jump);
            if (step < 0)
                break;
            int at = next + step;
            int distance = at - last;
            history = distance > 3 ? 0 : (history << (distance - 1)) & 7;
            last = at;
            next = at + 1;
            if (IsBranch(data, at, history))
            {
                Convert(data.Slice(at + 1, OperandSize), (uint)(at + 1 + OperandSize), history);
                next += OperandSize;
            }
            else
            {
                history = (history << 1) | 1;
            }
        }
    }

    /// <summary>Whether the opcode byte at <paramref name="at"/> was taken for a branch. Its target must be near, and if it lies among the
    /// operand bytes of one that was not taken, only a few patterns are: those that can be told apart afterwards.</summary>
    private static bool IsBranch(ReadOnlySpan<byte> data, int at, uint history) =>
        IsSign(data[at + OperandSize])
        && (history == 0 || (uint.IsPow2(history) && !IsSign(data[at + OperandSize - Overlap(history)])));

    private static void Convert(Span<byte> operand, uint next, uint history)
    {
        uint target = BinaryPrimitives.ReadUInt32LittleEndian(operand) - next;
        if (history != 0)
        {
            // The packer keeps the overlapped byte from looking like a sign: where it does, the packer went once more over the low part.
            int low = 32 - (8 * Overlap(history));
            if (IsSign((byte)(target >> (low - 8))))
                target = (target ^ ((1u << low) - 1)) - next;
        }
        // 25 bits of it count; the top byte is the sign.
        BinaryPrimitives.WriteUInt32LittleEndian(operand, (uint)((int)(target << 7) >> 7));
    }

    private static int Overlap(uint history) => BitOperations.Log2(history) + 1;

    private static bool IsSign(byte value) => value is 0x00 or 0xFF;
}
