using Vmm.Boot.Cache;
using Vmm.Vhost.Native;

namespace Vmm.Boot;

/// <summary>The kernel and the initramfs of a machine, open for as long as it lives. So a guest that resets boots the same files, even if their names
/// were given to other files or removed meanwhile.</summary>
internal sealed class KernelFiles : IDisposable
{
    private readonly CachedPayload? _kept;

    private KernelFiles(ImageFile kernel, ImageFile? initramfs, CachedPayload? kept, bool isLinux) =>
        (Kernel, Initramfs, _kept, IsLinux) = (kernel, initramfs, kept, isLinux);

    /// <summary>The kernel.</summary>
    public ImageFile Kernel { get; }

    /// <summary>The initramfs, or null.</summary>
    public ImageFile? Initramfs { get; }

    /// <summary>Whether the kernel is Linux: a bzImage with a kernel in it, or an ELF file with a note of the owner "Linux".</summary>
    public bool IsLinux { get; }

    /// <summary>What the kernel unpacks to, if that was kept; null where it was not, or where one of the two files has been written to since.</summary>
    /// <exception cref="ErrnoException">The kernel does not tell.</exception>
    public CachedPayload? Kept => _kept is not null && _kept.Source == Kernel.ReadVersion() && _kept.IsUnchanged ? _kept : null;

    /// <summary>Opens the files that <paramref name="options"/> name.</summary>
    /// <param name="options">Which they are.</param>
    /// <param name="doConfined">Does what unpacks the kernel, if that is to be kept; null: it is done as it is.</param>
    /// <param name="now">The time, in seconds since 1970; null: as the clock says.</param>
    /// <exception cref="VmmException">One is missing, or cannot be an image; the message names it and its option.</exception>
    public static KernelFiles Open(KernelOptions options, Action<Action>? doConfined = null, long? now = null)
    {
        ImageFile kernel = ImageFile.OpenKernel(options.KernelPath);
        ImageFile? initramfs = null;
        try
        {
            bool isLinux = KernelLoader.IsLinux(kernel);
            if (options.InitramfsPath is string path)
                initramfs = ImageFile.OpenInitramfs(path);
            CachedPayload? kept = options.Cache is { } cache && !options.GuestDecompression
                ? KernelCache.Open(cache, kernel, doConfined ?? (static action => action()), now ?? DateTimeOffset.UtcNow.ToUnixTimeSeconds())
                : null;
            return new KernelFiles(kernel, initramfs, kept, isLinux);
        }
        catch
        {
            initramfs?.Dispose();
            kernel.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Kernel.Dispose();
        Initramfs?.Dispose();
        _kept?.Dispose();
    }
}
