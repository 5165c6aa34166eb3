using System.Runtime.InteropServices;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Backend;

namespace Vmm.Devices.Backends.Rng;

/// <summary>What random bytes are read from: a device, a FIFO, or a file, which is read once. How far a file has been read is written down before anybody gets the bytes, in memory that
/// outlives the process: the next one reads on from there.</summary>
internal sealed class RngSource : IDisposable
{
    /// <summary>Bytes of the memory that outlives the process.</summary>
    public const int KeptSize = sizeof(ulong);

    private ulong _position;
    private KeptMemory? _kept;
    private bool _isLost;       // nobody knows any more how far it was read

    /// <summary>Opens it.</summary>
    /// <exception cref="ErrnoException">It cannot be opened, or is a directory.</exception>
    public RngSource(string path)
    {
        Path = path;
        if (FileKind.IsDirectory(path))
            throw new ErrnoException($"cannot use {path}", Errnos.Eisdir, "give a device or a file");
        Descriptor = FileDescriptor.Open(path, OpenMode.ReadNonBlocking);
        IsFile = FileKind.TryGetSize(Descriptor, out _, out _);
    }

    /// <summary>Its path, as it was given.</summary>
    public string Path { get; }

    /// <summary>What becomes readable when it has bytes again.</summary>
    public FileDescriptor Descriptor { get; }

    /// <summary>Whether it is a regular file, which has an end.</summary>
    public bool IsFile { get; }

    /// <summary>The memory is there, as this process or one before it has left it, or is gone. Nobody reads meanwhile.</summary>
    public void Keep(KeptMemory? memory)
    {
        _kept = memory;
        if (memory is null)
            return;
        // Whoever has the memory may have written anything into it: at worst there are no more bytes.
        ulong before = MemoryMarshal.Read<ulong>(memory.Bytes);
        if (before > _position)
        {
            _position = before;
            _isLost = Descriptor.TrySeek(before) < 0;
        }
        Note();
    }

    /// <summary>Reads some bytes.</summary>
    /// <returns>How many; 0 at its end; less: the negated error number.</returns>
    public int Read(Span<byte> buffer)
    {
        if (_isLost)
            return 0;
        int count = Descriptor.TryRead(buffer);
        if (count > 0 && IsFile)
        {
            _position += (ulong)count;
            Note();
        }
        return count;
    }

    /// <inheritdoc/>
    public void Dispose() => Descriptor.Dispose();

    private void Note()
    {
        if (_kept is { } kept)
            MemoryMarshal.Write(kept.Bytes, in _position);
    }
}
