using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace Vmm.Boot;

/// <summary>Copies megabytes by vector instructions. The C library's memmove uses rep movsb for such sizes, which software emulators of a
/// processor execute byte by byte.</summary>
internal static class MemoryMove
{
    /// <summary>Copies <paramref name="source"/> to <paramref name="target"/>, of the same length. They may overlap if target lies lower.</summary>
    public static void Down(ReadOnlySpan<byte> source, Span<byte> target)
    {
        ArgumentOutOfRangeException.ThrowIfNotEqual(source.Length, target.Length);
        ref byte from = ref MemoryMarshal.GetReference(source);
        ref byte to = ref MemoryMarshal.GetReference(target);
        nuint length = (nuint)source.Length;
        nuint step = (nuint)Vector256<byte>.Count * 4;
        nuint i = 0;
        // Rising addresses, and all loads of a step before its stores: no byte is overwritten before it was read.
        for (; i + step <= length; i += step)
        {
            Vector256<byte> a = Vector256.LoadUnsafe(ref from, i);
            Vector256<byte> b = Vector256.LoadUnsafe(ref from, i + 32);
            Vector256<byte> c = Vector256.LoadUnsafe(ref from, i + 64);
            Vector256<byte> d = Vector256.LoadUnsafe(ref from, i + 96);
            a.StoreUnsafe(ref to, i);
            b.StoreUnsafe(ref to, i + 32);
            c.StoreUnsafe(ref to, i + 64);
            d.StoreUnsafe(ref to, i + 96);
        }
        for (; i < length; i++)
            Unsafe.Add(ref to, i) = Unsafe.Add(ref from, i);
    }
}
