using Vmm.Boot.Payload;
using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Boot.Cache;

/// <summary>Keeps what kernels unpack to, from one run to the next (docs/adr/0015-unpacked-kernels-are-kept.md).</summary>
internal static class KernelCache
{
    // Within a tick of the file system's clock a file can change twice and look as if it had once.
    private const long MinAge = 2;

    private static readonly BoundedLog s_log = new("Vmm.Boot");

    /// <summary>What <paramref name="kernel"/> unpacks to, kept before or now.</summary>
    /// <param name="options">Where kernels are kept.</param>
    /// <param name="kernel">The kernel.</param>
    /// <param name="doConfined">Does what reads the kernel.</param>
    /// <param name="time">The time, in seconds since 1970.</param>
    /// <returns>Null where nothing of it can be kept, or nothing has to be unpacked.</returns>
    /// <exception cref="VmmException">The directory that the user has named cannot be used, or the kernel is damaged.</exception>
    public static CachedPayload? Open(KernelCacheOptions options, ImageFile kernel, Action<Action> doConfined, long time)
    {
        if (FindPayload(kernel) is not Range payload)
            return null;
        using CacheDirectory? directory = TryOpenDirectory(options);
        if (directory is null)
            return null;
        try
        {
            FileVersion source = kernel.ReadVersion();
            PageChecksum packed = SumOf(kernel, payload);
            if (Find(directory, source, packed) is { } kept)
                return kept;
            if (time - source.Changed.Seconds < MinAge)
            {
                s_log.Debug("The kernel was changed just now: what it unpacks to is not kept");
                return null;
            }
            return TryKeep(directory, kernel, source, packed, doConfined, time) ? Find(directory, source, packed) : null;
        }
        catch (Exception e) when (e is ErrnoException or IOException or UnauthorizedAccessException)
        {
            s_log.Debug("What the kernel unpacks to is not kept: {Reason}", e.Message);
            return null;
        }
    }

    // Only a directory that the user has named must be one.
    private static CacheDirectory? TryOpenDirectory(KernelCacheOptions options)
    {
        try
        {
            return CacheDirectory.Open(options);
        }
        catch (VmmException e) when (options.Directory is null)
        {
            s_log.Info("unpacked kernels are not kept: {Reason}", e.Message);
            return null;
        }
    }

    // Null where there is none. One that reaches behind the end of the file is refused when it is unpacked.
    private static Range? FindPayload(ImageFile kernel)
    {
        Span<byte> head = stackalloc byte[ElfKernel.HeadSize];
        head = head[..kernel.Read(head, 0)];
        if (ElfKernel.IsElf(head) || !SetupHeader.IsPresent(head) || SetupHeader.Read(kernel, head) is not { PayloadLength: not 0 } header)
            return null;
        ulong start = Math.Min((ulong)header.KernelOffset + header.PayloadOffset, (ulong)kernel.Length);
        return (int)start..(int)Math.Min(start + header.PayloadLength, (ulong)kernel.Length);
    }

    // A file system that has other ones' times (an image's, a server's) may show another kernel under the same numbers.
    private static PageChecksum SumOf(ImageFile kernel, Range payload)
    {
        using MappedFile view = kernel.Map();
        return PageChecksum.Of(view.Bytes[payload]);
    }

    private static CachedPayload? Find(CacheDirectory directory, in FileVersion source, in PageChecksum packed)
    {
        string name = CacheDirectory.NameOf(source);
        if (directory.TryOpen(name) is not { } file)
            return null;
        if (CachedPayload.TryOpen(file, source, packed) is { } payload)
            return payload;
        s_log.Debug("The kept kernel {Name} is damaged, or another kernel's: it is made anew", name);
        directory.Remove(name);
        return null;
    }

    private static bool TryKeep(CacheDirectory directory, ImageFile kernel, FileVersion source, PageChecksum packed, Action<Action> doConfined, long time)
    {
        using FileDescriptor file = directory.Create(out string name);
        bool isKept = false;
        try
        {
            doConfined(() => isKept = TryWrite(file, kernel, source, packed));
            if (isKept)
                directory.Rename(name, CacheDirectory.NameOf(source));
        }
        finally
        {
            if (!isKept)
                directory.Remove(name);
        }
        directory.Trim(time);
        return isKept;
    }

    private static bool TryWrite(FileDescriptor file, ImageFile kernel, in FileVersion source, in PageChecksum packed)
    {
        Span<byte> head = stackalloc byte[ElfKernel.HeadSize];
        head = head[..kernel.Read(head, 0)];
        using var payload = PackedPayload.TryOpen(kernel, SetupHeader.Read(kernel, head));
        if (payload is null)
            return false;
        var writer = new CacheFileWriter(file);
        payload.CopyTo(writer);
        writer.Finish(source, packed, payload.Length);
        if (writer.Errno != 0)
            throw new ErrnoException("cannot write the unpacked kernel", writer.Errno);
        return kernel.ReadVersion() == source;      // not while it was read
    }
}
