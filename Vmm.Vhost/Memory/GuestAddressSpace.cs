using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Vmm.Vhost.Memory;

/// <summary>The way from a guest-physical range to this process's memory: the only one there is, and it checks the whole range.
/// Whoever makes it keeps the regions mapped as long as it is used. That of a <see cref="GuestMemory"/> throws once that is disposed.</summary>
public sealed class GuestAddressSpace
{
    private readonly GuestRegion[] _regions;
    private readonly object? _owner;     // keeps the memory mapped: nobody else may have a reference any more
    private volatile bool _isGone;

    /// <summary>An address space of <paramref name="regions"/>, in any order.</summary>
    /// <exception cref="ArgumentException">Two regions overlap, or one is empty or wraps.</exception>
    public GuestAddressSpace(params ReadOnlySpan<GuestRegion> regions)
    {
        _regions = regions.ToArray();
        Array.Sort(_regions, (left, right) => left.Start.CompareTo(right.Start));
        ulong? previous = null;     // the last address of the region before; the next one is none where that ends at 2^64
        foreach (GuestRegion region in _regions)
        {
            ulong last = unchecked(region.Start.Value + region.Size - 1);
            if (region.Size == 0 || last < region.Start.Value || region.Start.Value <= previous)
                throw new ArgumentException($"region {region.Start}+0x{region.Size:x} is empty, wraps or overlaps another", nameof(regions));
            previous = last;
        }
    }

    /// <summary>The same, of regions that <paramref name="owner"/> keeps mapped as long as it is not collected.</summary>
    internal GuestAddressSpace(object owner, ReadOnlySpan<GuestRegion> regions)
        : this(regions) => _owner = owner;

    /// <summary>The regions, by rising guest-physical address.</summary>
    public ReadOnlySpan<GuestRegion> Regions => _regions;

    /// <summary>The bytes at <paramref name="address"/>, all in one region.</summary>
    /// <exception cref="GuestMemoryException">Some of the range is not guest memory, or it crosses regions.</exception>
    public Span<byte> Slice(GuestAddress address, int length) =>
        TrySlice(address, (ulong)length, out Span<byte> span)
            ? span
            : throw OutOfRange(address, (ulong)length);

    /// <summary>The bytes at <paramref name="address"/>, if all of them lie in one region and there are at most 2 GiB - 1 of them.</summary>
    public bool TrySlice(GuestAddress address, ulong length, out Span<byte> span)
    {
        if (TrySliceFront(address, length, out span) && (ulong)span.Length == length)
            return true;
        span = default;
        return false;
    }

    /// <summary>As many of the <paramref name="length"/> bytes at <paramref name="address"/> as lie in one region, at most 2 GiB - 1. Regions may
    /// border on each other, as those of a guest's NUMA nodes do.</summary>
    /// <returns>False if the first is not guest memory.</returns>
    /// <exception cref="ObjectDisposedException">The memory is disposed.</exception>
    public unsafe bool TrySliceFront(GuestAddress address, ulong length, out Span<byte> span)
    {
        ThrowIfGone();
        foreach (ref readonly GuestRegion region in _regions.AsSpan())
        {
            // Unsigned: an address below the region gives a huge offset; compared by subtraction, so nothing can wrap.
            ulong offset = address.Value - region.Start.Value;
            if (offset < region.Size)
            {
                // SAFETY: no more than lies inside this mapped region.
                span = new Span<byte>((byte*)region.HostAddress + offset, (int)Math.Min(Math.Min(length, region.Size - offset), int.MaxValue));
                return true;
            }
        }
        span = default;
        return false;
    }

    /// <summary>Where the <paramref name="length"/> bytes at <paramref name="address"/> are in this process: for the kernel, which works on them itself.</summary>
    /// <exception cref="GuestMemoryException">Some of the range is not guest memory, or it crosses regions.</exception>
    public unsafe nint HostAddress(GuestAddress address, int length)
    {
        // SAFETY: no managed memory, so nothing moves.
        fixed (byte* pointer = Slice(address, length))
            return (nint)pointer;
    }

    /// <summary>The guest-physical address of a byte of this process, if it is guest memory.</summary>
    public bool TryGetAddress(nint hostAddress, out GuestAddress address)
    {
        foreach (ref readonly GuestRegion region in _regions.AsSpan())
        {
            ulong offset = (ulong)hostAddress - (ulong)region.HostAddress;
            if (offset < region.Size)
            {
                address = region.Start + offset;
                return true;
            }
        }
        address = default;
        return false;
    }

    /// <summary>Reads a <typeparamref name="T"/> at <paramref name="address"/>, whatever its alignment.</summary>
    /// <exception cref="GuestMemoryException">Not all of it is guest memory.</exception>
    public T Read<T>(GuestAddress address)
        where T : unmanaged
    {
        T value = MemoryMarshal.Read<T>(Slice(address, Unsafe.SizeOf<T>()));
        GC.KeepAlive(_owner);
        return value;
    }

    /// <summary>Writes <paramref name="value"/> at <paramref name="address"/>, whatever its alignment.</summary>
    /// <exception cref="GuestMemoryException">Not all of it is guest memory.</exception>
    public void Write<T>(GuestAddress address, in T value)
        where T : unmanaged
    {
        MemoryMarshal.Write(Slice(address, Unsafe.SizeOf<T>()), in value);
        GC.KeepAlive(_owner);
    }

    /// <summary>The memory is disposed: nobody finds it any more.</summary>
    internal void End() => _isGone = true;

    /// <summary>Throws if the memory was disposed of.</summary>
    internal void ThrowIfGone() => ObjectDisposedException.ThrowIf(_isGone, typeof(GuestMemory));

    /// <summary>The exception for a range that does not lie in one region of the memory.</summary>
    internal static GuestMemoryException OutOfRange(GuestAddress address, ulong length) =>
        new($"guest-physical range {address}+0x{length:x} is not inside one region of guest memory");
}
