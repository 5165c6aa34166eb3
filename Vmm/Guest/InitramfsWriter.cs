using System.Globalization;
using System.Text;

namespace Vmm.Guest;

/// <summary>Writes an initramfs: a cpio archive of the format "newc" (Linux Documentation/driver-api/early-userspace/buffer-format.rst). Everything
/// in it belongs to root and has no time, so the same contents make the same bytes.</summary>
/// <remarks>Names are absolute paths of the guest. The directories above a name come before it, with mode 0755, unless they were added before.</remarks>
internal sealed class InitramfsWriter
{
    private const uint Directory = 0x4000, CharacterDevice = 0x2000, Regular = 0x8000;   // S_IFMT
    private const uint PermissionMask = 0xFFF;
    private const int MaxName = 4095;           // PATH_MAX of Linux without the terminating zero
    private const string Trailer = "TRAILER!!!";

    private readonly Stream _target;
    private readonly HashSet<string> _names = [];
    private uint _inode;
    private long _length;
    private bool _isEnded;

    /// <summary>Writes to <paramref name="target"/>, which remains the caller's. Nothing is sought: a pipe will do.</summary>
    public InitramfsWriter(Stream target) => _target = target;

    /// <summary>Adds a file.</summary>
    /// <param name="path">Its absolute path.</param>
    /// <param name="content">Its bytes.</param>
    /// <param name="mode">Its permissions.</param>
    /// <exception cref="ArgumentException">The path is not one of a new entry.</exception>
    public void AddFile(string path, ReadOnlySpan<byte> content, int mode = 0x1A4 /* 0644 */) => Add(path, Regular, mode, content);

    /// <summary>Adds a character device.</summary>
    /// <param name="path">Its absolute path.</param>
    /// <param name="major">Its major number.</param>
    /// <param name="minor">Its minor number.</param>
    /// <param name="mode">Its permissions.</param>
    /// <exception cref="ArgumentException">The path is not one of a new entry.</exception>
    public void AddCharacterDevice(string path, uint major, uint minor, int mode = 0x180 /* 0600 */) =>
        Add(path, CharacterDevice, mode, [], major, minor);

    /// <summary>Ends the archive. Nothing can be added any more.</summary>
    public void End()
    {
        WriteEntry(Trailer, 0, 0, [], 0, 0);
        _isEnded = true;
    }

    private void Add(string path, uint type, int mode, ReadOnlySpan<byte> content, uint major = 0, uint minor = 0)
    {
        ObjectDisposedException.ThrowIf(_isEnded, this);
        string name = Check(path);
        for (int slash = name.IndexOf('/', StringComparison.Ordinal); slash > 0; slash = name.IndexOf('/', slash + 1))
        {
            if (_names.Add(name[..slash]))
                WriteEntry(name[..slash], ++_inode, Directory | 0x1ED, [], 0, 0);
        }
        if (!_names.Add(name))
            throw new ArgumentException($"'{path}' is there already", nameof(path));
        WriteEntry(name, ++_inode, type | ((uint)mode & PermissionMask), content, major, minor);
    }

    // The name in the archive: the kernel takes it relative to the root.
    private static string Check(string path)
    {
        if (!path.StartsWith('/') || Encoding.UTF8.GetByteCount(path) > MaxName || path.Contains('\0', StringComparison.Ordinal)
            || path[1..].Split('/').Any(part => part is "" or "." or "..") || path[1..] == Trailer)
        {
            throw new ArgumentException($"'{path}' is not an absolute path without '.', '..' and empty parts", nameof(path));
        }
        return path[1..];
    }

    private void WriteEntry(string name, uint inode, uint mode, ReadOnlySpan<byte> content, uint major, uint minor)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(name);
        uint links = (mode & 0xF000) == Directory ? 2u : 1u;
        // magic, ino, mode, uid, gid, nlink, mtime, filesize, maj, min, rmaj, rmin, namesize (with its zero), chksum
        string header = string.Create(
            CultureInfo.InvariantCulture,
            $"070701{inode:X8}{mode:X8}{0:X8}{0:X8}{links:X8}{0:X8}{content.Length:X8}{0:X8}{0:X8}{major:X8}{minor:X8}{bytes.Length + 1:X8}{0:X8}");
        Write(Encoding.ASCII.GetBytes(header));
        Write(bytes);
        Write([0]);
        Pad();
        Write(content);
        Pad();
    }

    private void Write(ReadOnlySpan<byte> bytes)
    {
        _target.Write(bytes);
        _length += bytes.Length;
    }

    // Header and name together, and the content, each end at a multiple of four.
    private void Pad() => Write("\0\0\0"u8[..(int)(-_length & 3)]);
}
