namespace Vmm.Boot;

/// <summary>The kernel and the initramfs of a machine, open for as long as it lives: a guest that resets boots the same files, also when others
/// have taken their places meanwhile, or nothing has.</summary>
internal sealed class KernelFiles : IDisposable
{
    private KernelFiles(ImageFile kernel, ImageFile? initramfs, bool isLinux) => (Kernel, Initramfs, IsLinux) = (kernel, initramfs, isLinux);

    /// <summary>The kernel.</summary>
    public ImageFile Kernel { get; }

    /// <summary>The initramfs, or null.</summary>
    public ImageFile? Initramfs { get; }

    /// <summary>Whether the kernel is Linux: a bzImage with a kernel in it, or an ELF file with a note of the owner "Linux".</summary>
    public bool IsLinux { get; }

    /// <summary>Opens the files that <paramref name="options"/> name.</summary>
    /// <exception cref="VmmException">One is missing, or cannot be an image; the message names it and its option.</exception>
    public static KernelFiles Open(KernelOptions options)
    {
        ImageFile kernel = ImageFile.OpenKernel(options.KernelPath);
        try
        {
            bool isLinux = KernelLoader.IsLinux(kernel);
            return new KernelFiles(kernel, options.InitramfsPath is string path ? ImageFile.OpenInitramfs(path) : null, isLinux);
        }
        catch
        {
            kernel.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Kernel.Dispose();
        Initramfs?.Dispose();
    }
}
