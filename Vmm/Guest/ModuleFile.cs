using Vmm.Boot.Payload;
using Vmm.Vhost.Native;

namespace Vmm.Guest;

/// <summary>A module of the guest's kernel, as a file of the host.</summary>
/// <param name="Name">Its name, with underscores.</param>
/// <param name="Path">The file: .ko, or that packed by gzip, xz or zstd.</param>
/// <param name="IsOptional">Whether the guest goes on if it does not load: one of several that do the same, for one processor or another.</param>
/// <param name="Confines">The directory below which the file must be, with no link on the way; null where it may be anywhere.</param>
internal sealed record ModuleFile(string Name, string Path, bool IsOptional, string? Confines = null)
{
    private const int MaxSize = 256 << 20;      // one with all its debugging information

    /// <summary>Whether a signature is appended to it, which the kernel checks when it loads the module.</summary>
    /// <exception cref="VmmException">It cannot be read, or is damaged.</exception>
    public bool IsSigned => TryRead().AsSpan().EndsWith("~Module signature appended~\n"u8);    // linux/module_signature.h

    /// <summary>The module as the kernel takes it, unpacked; null if it is optional and its file is not there.</summary>
    /// <inheritdoc cref="Read"/>
    public byte[]? TryRead()
    {
        try
        {
            return Read();
        }
        catch (VmmException e) when (IsOptional && e.InnerException is ErrnoException { Errno: Errnos.Enoent })
        {
            return null;
        }
    }

    /// <summary>The module as the kernel takes it, unpacked.</summary>
    /// <exception cref="VmmException">It cannot be read, or is damaged.</exception>
    public byte[] Read()
    {
        try
        {
            using RegularFile file = Confines is null ? RegularFile.OpenRead(Path) : RegularFile.OpenBeneath(Confines, System.IO.Path.GetRelativePath(Confines, Path));
            if (file.Length is 0 or > MaxSize)
                throw new VmmException($"module {Path} has {file.Length} bytes: it must have 1 to {MaxSize}");
            using MappedFile view = file.Map();
            byte[] content = CompressedFile.Decode(new MappedRange(view, 0, view.Bytes.Length), MaxSize);
            return content is [0x7F, (byte)'E', (byte)'L', (byte)'F', ..] ? content : throw new VmmException($"module {Path} is not an ELF file");
        }
        catch (ErrnoException e) when (e.Errno == Errnos.Eloop && Confines is not null)
        {
            throw new VmmException(
                $"module {Path} is a symbolic link or behind one, which it must not be where a vmm.toml that was found has chosen it: name {Confines} by --modules, or the file by --config", e);
        }
        catch (ErrnoException e)
        {
            throw new VmmException($"module {Name}: {e.Message}", e);
        }
        catch (Exception e) when (e is not (VmmException or OutOfMemoryException))
        {
            // Whatever a decoder trips over in a damaged file: several libraries, each with exceptions of its own.
            throw new VmmException($"module {Path} is damaged: {e.Message.ReplaceLineEndings(" ")}", e);
        }
    }
}
