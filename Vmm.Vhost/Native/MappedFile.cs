namespace Vmm.Vhost.Native;

/// <summary>A read-only view of a file, unmapped when disposed; spans and streams over it are valid until then.</summary>
public sealed class MappedFile : IDisposable
{
    private readonly MemoryMapping _mapping;

    internal MappedFile(MemoryMapping mapping) => _mapping = mapping;

    /// <summary>All its bytes.</summary>
    /// <exception cref="ObjectDisposedException">It is disposed.</exception>
    // SAFETY: exactly the mapped range, whose length Map checked to fit an int.
    public unsafe ReadOnlySpan<byte> Bytes => new(_mapping.Pointer, (int)_mapping.Length);

    /// <summary>A stream over <paramref name="length"/> bytes from <paramref name="offset"/>.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The range is not inside the file.</exception>
    public unsafe Stream OpenStream(int offset, int length)
    {
        _ = Bytes.Slice(offset, length);
        // SAFETY: the range was just checked to lie inside the mapping.
        return new UnmanagedMemoryStream(_mapping.Pointer + offset, length);
    }

    /// <inheritdoc/>
    public void Dispose() => _mapping.Dispose();
}
