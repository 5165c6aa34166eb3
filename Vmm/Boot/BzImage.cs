using Vmm.Boot.Payload;
using Vmm.Vhost;
using Vmm.Vhost.Memory;

namespace Vmm.Boot;

/// <summary>Loads a bzImage by the 64-bit boot protocol (Linux Documentation/arch/x86/boot.rst). The kernel inside is unpacked here,
/// which is several times faster than its own decompressor is in a guest; that one is used if asked for, or if the format is unknown.</summary>
internal static class BzImage
{
    private const ulong Entry64 = 0x200;    // the 64-bit entry point, from the load address
    private const uint Truncatable = 16;    // syssize is rounded up, the file need not be

    private static readonly BoundedLog Log = new("Vmm.Boot");

    /// <summary>Loads the file that begins with <paramref name="head"/>.</summary>
    /// <param name="memory">Guest memory.</param>
    /// <param name="file">The file.</param>
    /// <param name="head">Its first bytes.</param>
    /// <param name="options">How the kernel is booted.</param>
    /// <param name="initramfsSize">The bytes for which there must be room above the kernel.</param>
    /// <param name="kept">What it unpacks to, if that was kept.</param>
    /// <exception cref="VmmException">The file is not a kernel for this machine, is corrupt, or the guest is too small for it.</exception>
    public static LoadedKernel Load(
        GuestMemory memory, ImageFile file, ReadOnlySpan<byte> head, KernelOptions options, ulong initramfsSize, IKernelPayload? kept = null)
    {
        SetupHeader header = SetupHeader.Read(file, head);
        KernelCommandLine.Check(options.CommandLine, header.CommandLineLimit);
        ulong kernelEnd = (ulong)header.KernelOffset + header.KernelSize;
        if (kernelEnd - Math.Min(kernelEnd, Truncatable) >= (ulong)file.Length || header.KernelOffset >= file.Length)
            throw file.Error($"truncated: setup_sects and syssize say {kernelEnd} bytes, the file has {file.Length}");
        // Without a payload there is nothing to unpack: what is in the file runs as it is (memtest86+).
        if (options.GuestDecompression || header.PayloadLength == 0)
            return LoadPacked(memory, file, header, options);
        if (kept is not null)
            return UnpackedKernel.Load(memory, file, header, kept, options, initramfsSize);
        using var payload = PackedPayload.TryOpen(file, header);
        if (payload is null)
        {
            Log.Info("The kernel's compression is not one that is undone here: it unpacks itself in the guest");
            return LoadPacked(memory, file, header, options);
        }
        return UnpackedKernel.Load(memory, file, header, payload, options, initramfsSize);
    }

    private static LoadedKernel LoadPacked(GuestMemory memory, ImageFile file, SetupHeader header, KernelOptions options)
    {
        if (options.Entry == KernelEntry.Pvh)
            throw file.Error("the PVH entry is in the unpacked kernel: not possible when the guest unpacks it");
        int size = (int)Math.Min(header.KernelSize, (ulong)(file.Length - header.KernelOffset));
        ulong address = LoadAddress(file, header);
        ulong room = Math.Max(header.InitSize, (ulong)size);
        var ram = new LowRam(memory);
        ram.CheckFits(file, address, room);
        file.ReadExactly(ram.Slice(file, address, (ulong)size), (ulong)header.KernelOffset);
        return new LoadedKernel(BootMode.Long64, address + Entry64, address + room, header);
    }

    private static ulong LoadAddress(ImageFile file, SetupHeader header)
    {
        ulong preferred = header.PreferredAddress;
        if (!header.IsRelocatable)
            return preferred;
        ulong alignment = header.Alignment;
        if (!ulong.IsPow2(alignment))
            throw file.Error($"kernel_alignment is 0x{alignment:x}: not a power of two");
        ulong wanted = Math.Clamp(preferred, BootLayout.KernelStart, AddressMap.LowRamEnd);
        return Align.Up(wanted, alignment);
    }
}
