namespace Vmm.Vhost.Native.FileSystem;

/// <summary>A file, and a version of its content. Whoever writes to the file sets <paramref name="Changed"/>, which he cannot set back as
/// <paramref name="Modified"/> can be (stat(2), utimensat(2)); but the clock of both ticks every few milliseconds only. All of it is as trustworthy as the file
/// system: an image brings its times along, a server says what it likes, and another file system may get the same <paramref name="Device"/> later.</summary>
/// <param name="Device">The number of its file system.</param>
/// <param name="Inode">Its number there.</param>
/// <param name="Size">Bytes.</param>
/// <param name="Modified">When its content changed last (mtime).</param>
/// <param name="Changed">When its content or anything else of it changed last (ctime).</param>
public readonly record struct FileVersion(ulong Device, ulong Inode, ulong Size, FileTime Modified, FileTime Changed);
