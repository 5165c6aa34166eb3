namespace Vmm.Vhost.Native.FileSystem;

/// <summary>A file, and a version of its content. Whoever writes to the file sets <paramref name="Changed"/>, which nobody can set back as
/// <paramref name="Modified"/> can be (stat(2), utimensat(2)); but the clock of both ticks every few milliseconds only.</summary>
/// <param name="Device">The number of its file system.</param>
/// <param name="Inode">Its number there.</param>
/// <param name="Size">Bytes.</param>
/// <param name="Modified">When its content changed last (mtime).</param>
/// <param name="Changed">When its content or anything else of it changed last (ctime).</param>
public readonly record struct FileVersion(ulong Device, ulong Inode, ulong Size, FileTime Modified, FileTime Changed);
