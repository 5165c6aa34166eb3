using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace Vmm.Boot.Cache;

/// <summary>Tells a file that was written in part, or has changed, from one that is sound: for each of four columns of 64-bit words their sum, and the sum of all sums on
/// the way, so that places count, too (Fletcher's checksum). It is no protection against somebody who changes the file on purpose.</summary>
internal record struct PageChecksum
{
    /// <summary>Bytes of a checksum, and what it is taken over is a multiple of <see cref="Step"/>.</summary>
    public const int Step = 4 * sizeof(ulong), Size = 2 * Step;

    private Vector256<ulong> _sum = Vector256.Create(1ul);      // so that zeros count
    private Vector256<ulong> _sumOfSums;

    /// <summary>The checksum of nothing.</summary>
    public PageChecksum()
    {
    }

    /// <summary>The checksum of <paramref name="bytes"/>, of which there may be any number, filled up by zeros to a multiple of <see cref="Step"/>.</summary>
    public static PageChecksum Of(ReadOnlySpan<byte> bytes)
    {
        var checksum = new PageChecksum();
        int whole = bytes.Length - (bytes.Length % Step);
        checksum.Add(bytes[..whole]);
        Span<byte> last = stackalloc byte[Step];
        last.Clear();
        bytes[whole..].CopyTo(last);
        checksum.Add(last);
        return checksum;
    }

    /// <summary>Goes on with <paramref name="bytes"/>, a multiple of <see cref="Step"/>.</summary>
    public void Add(ReadOnlySpan<byte> bytes)
    {
        ArgumentOutOfRangeException.ThrowIfNotEqual(bytes.Length % Step, 0);
        (Vector256<ulong> sum, Vector256<ulong> sumOfSums) = (_sum, _sumOfSums);
        ref byte start = ref MemoryMarshal.GetReference(bytes);
        nuint length = (nuint)bytes.Length, i = 0;
        for (; i + (4 * Step) <= length; i += 4 * Step)     // the loop itself costs as much as one step
        {
            sum += Vector256.LoadUnsafe(ref start, i).AsUInt64();
            sumOfSums += sum;
            sum += Vector256.LoadUnsafe(ref start, i + Step).AsUInt64();
            sumOfSums += sum;
            sum += Vector256.LoadUnsafe(ref start, i + (2 * Step)).AsUInt64();
            sumOfSums += sum;
            sum += Vector256.LoadUnsafe(ref start, i + (3 * Step)).AsUInt64();
            sumOfSums += sum;
        }
        for (; i < length; i += Step)
        {
            sum += Vector256.LoadUnsafe(ref start, i).AsUInt64();
            sumOfSums += sum;
        }
        (_sum, _sumOfSums) = (sum, sumOfSums);
    }

    /// <summary>Writes the result so far to <paramref name="target"/>, <see cref="Size"/> bytes.</summary>
    public readonly void Write(Span<byte> target)
    {
        _sum.AsByte().CopyTo(target);
        _sumOfSums.AsByte().CopyTo(target[Step..]);
    }
}
