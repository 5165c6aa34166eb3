using System.Text;
using Vmm.Vhost.Native;

namespace Vmm.Guest;

/// <summary>Small files of the host that describe a kernel. Whatever is in a file's place, reading it ends, and takes no more memory than its limit.</summary>
internal static class HostFile
{
    /// <summary>All of the file at <paramref name="path"/>.</summary>
    /// <param name="path">The file.</param>
    /// <param name="limit">The most bytes that it may have.</param>
    /// <returns>Null if there is no such file.</returns>
    /// <exception cref="VmmException">It cannot be read, is not a file, or is too large; the message names it.</exception>
    public static byte[]? TryRead(string path, int limit)
    {
        try
        {
            using RegularFile file = RegularFile.OpenRead(path);
            if (file.Length > (ulong)limit)
                throw new VmmException($"{path} has {file.Length} bytes: at most {limit} are read");
            byte[] bytes = new byte[file.Length];
            int count = file.Read(bytes, 0);
            return count == bytes.Length ? bytes : bytes[..count];
        }
        catch (ErrnoException e) when (e.Errno is Errnos.Enoent or Errnos.Enotdir)
        {
            return null;
        }
        catch (ErrnoException e)
        {
            throw new VmmException(e.Message, e);
        }
        catch (InvalidDataException e)
        {
            throw new VmmException($"{path} {e.Message}, not a file", e);
        }
    }

    /// <summary>The first line of the file at <paramref name="path"/>, at most 4096 bytes; null if there is no such file.</summary>
    /// <exception cref="VmmException">It cannot be read, or is too large.</exception>
    public static string? TryReadLine(string path) =>
        TryRead(path, 4096) is byte[] bytes ? Encoding.UTF8.GetString(bytes).Split('\n')[0].TrimEnd() : null;
}
