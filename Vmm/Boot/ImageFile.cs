using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Boot;

/// <summary>A kernel or initramfs file, with errors that name it.</summary>
internal sealed class ImageFile : IDisposable
{
    private const ulong MaxKernel = 1UL << 30;   // far more than any kernel, and any offset in it fits an int

    private readonly RegularFile _file;
    private readonly string _name;

    private ImageFile(RegularFile file, string name)
    {
        _file = file;
        _name = name;
    }

    /// <summary>A kernel's size in bytes: 1 byte to 1 GiB.</summary>
    public int Length => checked((int)_file.Length);

    /// <summary>The size in bytes: 1 or more.</summary>
    public ulong Size => _file.Length;

    /// <summary>Opens the kernel at <paramref name="path"/>.</summary>
    /// <exception cref="VmmException">There is no such file, or it cannot be a kernel.</exception>
    public static ImageFile OpenKernel(string path) => Open(path, "kernel", "--kernel", MaxKernel);

    /// <summary>Opens the initramfs at <paramref name="path"/>; the guest's memory limits its size.</summary>
    /// <exception cref="VmmException">There is no such file, or it cannot be an initramfs.</exception>
    public static ImageFile OpenInitramfs(string path) => Open(path, "initramfs", "--initramfs", ulong.MaxValue);

    private static ImageFile Open(string path, string what, string option, ulong max)
    {
        string name = $"{what} {path}";
        RegularFile file;
        try
        {
            file = RegularFile.OpenRead(path);
        }
        catch (ErrnoException e)
        {
            throw new VmmException(e.IsShortage ? $"{option}: {e.Message}" : $"{what}: {e.Message}: check {option}", e);
        }
        catch (InvalidDataException e)
        {
            throw new VmmException($"{name} {e.Message}, not a file: check {option}", e);
        }
        string? problem = file.Length switch
        {
            0 => "is empty",
            ulong length when length > max => $"has {length >> 20} MiB; at most {max >> 20} MiB are possible",
            _ => null,
        };
        if (problem is null)
            return new ImageFile(file, name);
        file.Dispose();
        throw new VmmException($"{name} {problem}: check {option}");
    }

    /// <summary>The failure to throw for what is wrong with this file.</summary>
    public VmmException Error(string problem, Exception? inner = null) => new($"{_name}: {problem}", inner);

    /// <summary>Reads at most all of <paramref name="target"/> from <paramref name="offset"/>.</summary>
    /// <returns>The bytes read: fewer only at the end of the file.</returns>
    /// <exception cref="VmmException">The file cannot be read.</exception>
    public int Read(Span<byte> target, ulong offset)
    {
        try
        {
            return _file.Read(target, offset);
        }
        catch (ErrnoException e)
        {
            throw Error(e.Message, e);
        }
    }

    /// <summary>Fills <paramref name="target"/> from <paramref name="offset"/>.</summary>
    /// <exception cref="VmmException">The file cannot be read, or has become shorter.</exception>
    public void ReadExactly(Span<byte> target, ulong offset)
    {
        int read = Read(target, offset);
        if (read != target.Length)
            throw Error($"ends at byte {offset + (uint)read} while it is read: it must not change while a guest starts");
    }

    /// <summary>Which file it is, and in which version.</summary>
    /// <exception cref="ErrnoException">The kernel does not tell.</exception>
    public FileVersion ReadVersion() => _file.ReadVersion();

    /// <summary>Maps the file; its pages count as ours until the view is disposed.</summary>
    /// <exception cref="VmmException">It cannot be mapped, or has become shorter: the pages behind its end would end this process by SIGBUS.</exception>
    public MappedFile Map()
    {
        try
        {
            ulong size = ReadVersion().Size;
            if (size < _file.Length)
                throw Error($"has become shorter, {size} bytes and not {_file.Length}: it must not change while a guest runs that may restart");
            return _file.Map();
        }
        catch (ErrnoException e)
        {
            throw Error(e.Message, e);
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _file.Dispose();
}
