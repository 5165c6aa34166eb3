using System.Buffers.Binary;
using System.Runtime.InteropServices;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Virtio;

/// <summary>The registers of a device as its driver reads them: a page that is always up to date, so that it can be mapped into the
/// guest and reading a register does not leave it. What must change at one stroke is prepared on a second page, which then takes
/// the place of the first: a reader sees the one or the other, never a mixture.</summary>
/// <remarks>Both are pages of one memfd, so that one stays writable here while the guest's view of the other may not be.</remarks>
public sealed unsafe class RegisterPage : IDisposable
{
    /// <summary>Bytes of registers.</summary>
    public const int Size = 4096;

    private readonly FileDescriptor _file;
    private readonly MemoryMapping _pages;
    private readonly MemoryMapping _view;
    private int _current;

    /// <summary>Makes a page of zeros.</summary>
    /// <exception cref="ErrnoException">There is no memory for it.</exception>
    public RegisterPage()
    {
        _file = MemFd.Create("virtio-mmio-registers", 2 * Size);
        try
        {
            _pages = MemoryMapping.Map(_file, 2 * Size, MappingAccess.SharedReadWrite);
            _view = MemoryMapping.Map(_file, Size, MappingAccess.SharedReadWrite);
        }
        catch
        {
            _pages?.Dispose();
            _file.Dispose();
            throw;
        }
    }

    /// <summary>Where the page is in this process, for a mapping into the guest. The address stays, whatever page is behind it.</summary>
    public nint Address => (nint)_view.Pointer;

    /// <summary>The registers as they are now.</summary>
    public ReadOnlySpan<byte> Current => Page(_current);

    /// <summary>Changes one 32-bit register; a reader sees the old value or the new one.</summary>
    public void Set(int offset, uint value) => Volatile.Write(
        ref MemoryMarshal.AsRef<uint>(Page(_current).Slice(offset, sizeof(uint))), value);

    /// <summary>Reads one 32-bit register.</summary>
    public uint Get(int offset) => BinaryPrimitives.ReadUInt32LittleEndian(Page(_current)[offset..]);

    /// <summary>A copy of the registers to change at will before <see cref="Publish"/> shows all of it at once.</summary>
    public Span<byte> Prepare()
    {
        Span<byte> next = Page(1 - _current);
        Page(_current).CopyTo(next);
        return next;
    }

    /// <summary>Puts the page of the last <see cref="Prepare"/> in the place of the current one.</summary>
    /// <exception cref="ErrnoException">mmap(2) failed; the current page stays.</exception>
    public void Publish()
    {
        _view.Replace(_file, (ulong)(1 - _current) * Size);
        _current = 1 - _current;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _view.Dispose();
        _pages.Dispose();
        _file.Dispose();
    }

    // SAFETY: index is 0 or 1, and the mapping has both pages.
    private Span<byte> Page(int index) => new(_pages.Pointer + index * Size, Size);
}
