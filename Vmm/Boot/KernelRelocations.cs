using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Vmm.Boot;

/// <summary>The places in a Linux kernel that hold addresses of its own and must be changed where it is to run at other virtual addresses than it was linked for.
/// A kernel with CONFIG_RANDOMIZE_BASE has the list behind its ELF file in the payload of a bzImage.</summary>
/// <remarks>Words of 32 bits, in this order: 0, the places of 64-bit addresses; 0, the places of negated 32-bit ones, until Linux 6.14; 0, the places of
/// 32-bit ones. Each is the low half of a link-time virtual address (Linux 6.1 and 6.16, arch/x86/boot/compressed/misc.c, handle_relocations).</remarks>
internal readonly struct KernelRelocations
{
    /// <summary>The virtual address of a 64-bit kernel's physical address 0, the low half (__START_KERNEL_map).</summary>
    private const uint VirtualBase = 0x8000_0000;

    private KernelRelocations(int start, int length) => (Start, Length) = (start, length);

    /// <summary>Where the list begins in the unpacked payload.</summary>
    public int Start { get; }

    /// <summary>Its bytes.</summary>
    public int Length { get; }

    /// <summary>Where the list would be in an unpacked payload: what is behind the ELF file.</summary>
    /// <param name="elf">The ELF file's headers.</param>
    /// <param name="length">The length of the payload in bytes.</param>
    /// <returns>Null if nothing that could be the list is there.</returns>
    public static KernelRelocations? Find(ElfKernel elf, int length) =>
        elf.FileEnd is int end && length - end >= 3 * sizeof(uint) && (length - end) % sizeof(uint) == 0 ? new KernelRelocations(end, length - end) : null;

    /// <summary>Changes the kernel so that it runs <paramref name="shift"/> bytes higher in its address space.</summary>
    /// <param name="file">The kernel's file, for errors.</param>
    /// <param name="list">The list's bytes.</param>
    /// <param name="image">The kernel's bytes in guest memory, from its lowest segment to the last byte that comes from the file.</param>
    /// <param name="linkedAt">The physical address that it was linked for; below 1 GiB.</param>
    /// <param name="shift">A multiple of the kernel's alignment.</param>
    /// <returns>False, and nothing has changed, where the list has another form than those that are known.</returns>
    /// <exception cref="VmmException">A place is outside of the kernel.</exception>
    public static bool Apply(ImageFile file, ReadOnlySpan<byte> list, Span<byte> image, uint linkedAt, uint shift)
    {
        ReadOnlySpan<uint> words = MemoryMarshal.Cast<byte, uint>(list);
        int count = words.Count(0u);   // each list has a 0 before it
        if (count is not (2 or 3) || words[0] != 0)
            return false;
        uint origin = unchecked(VirtualBase + linkedAt);
        int number = 0;
        foreach (Range range in words.Split(0u))
        {
            ReadOnlySpan<uint> places = words[range];
            if (number == 1)
                AddToLongOnes(file, places, image, origin, shift);
            else
                AddToAll(file, places, image, origin, number == count ? shift : unchecked(0 - shift));
            number++;
        }
        return true;
    }

    private static void AddToLongOnes(ImageFile file, ReadOnlySpan<uint> places, Span<byte> image, uint origin, uint change)
    {
        ref byte start = ref MemoryMarshal.GetReference(image);
        long limit = (long)image.Length - sizeof(ulong);
        foreach (uint place in places)
        {
            uint offset = unchecked(place - origin);   // a place below the kernel becomes one far behind it
            if (offset > limit)
                throw OutOfPlace(file, place);
            ref byte target = ref Unsafe.Add(ref start, (nint)offset);
            Unsafe.WriteUnaligned(ref target, unchecked(Unsafe.ReadUnaligned<ulong>(ref target) + change));
        }
    }

    private static void AddToAll(ImageFile file, ReadOnlySpan<uint> places, Span<byte> image, uint origin, uint change)
    {
        ref byte start = ref MemoryMarshal.GetReference(image);
        long limit = (long)image.Length - sizeof(uint);
        foreach (uint place in places)
        {
            uint offset = unchecked(place - origin);
            if (offset > limit)
                throw OutOfPlace(file, place);
            ref byte target = ref Unsafe.Add(ref start, (nint)offset);
            Unsafe.WriteUnaligned(ref target, unchecked(Unsafe.ReadUnaligned<uint>(ref target) + change));
        }
    }

    private static VmmException OutOfPlace(ImageFile file, uint place) =>
        file.Error($"the payload's list of relocations has 0x{unchecked((ulong)(int)place):x}, which is not in the kernel: corrupt");
}
