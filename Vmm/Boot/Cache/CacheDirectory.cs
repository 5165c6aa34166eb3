using System.Buffers;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Boot.Cache;

/// <summary>The directory of kept kernels. It is this user's, and nobody else may write to it; else it is not used.</summary>
internal sealed class CacheDirectory : IDisposable
{
    /// <summary>What all files together may take, in bytes: those of some eight kernels.</summary>
    public const ulong MaxSize = 256 << 20;

    private const string UnfinishedPrefix = ".new-";
    private const string Suffix = ".kernel";
    private const uint OwnerReadWrite = 0x180;      // 0600
    private const int MaxDigits = 16;               // of a number in a name
    private const long Abandoned = 3600;            // seconds, after which an unfinished file has no writer any more

    private static readonly SearchValues<char> s_hexDigits = SearchValues.Create("0123456789abcdef");

    private readonly string _path;
    private readonly FileDescriptor _directory;

    private CacheDirectory(string path, FileDescriptor directory) => (_path, _directory) = (path, directory);

    /// <summary>Opens the directory that <paramref name="options"/> mean. The user's own is made if it is not there.</summary>
    /// <exception cref="VmmException">It is not there, or not safe; one line.</exception>
    public static CacheDirectory Open(KernelCacheOptions options)
    {
        string path = options.Directory is { } given ? RealPath.Absolute(given) : MakeOwn(ProcessText.Variable("XDG_CACHE_HOME"), ProcessText.Variable("HOME"));
        try
        {
            string name = Path.GetFileName(Path.TrimEndingDirectorySeparator(path));
            using FileDescriptor parent = FileTree.OpenDirectory(Path.GetDirectoryName(Path.TrimEndingDirectorySeparator(path)) ?? "/");
            using HeldDescriptor heldParent = parent.Hold();
            int number = FileTree.Open(heldParent, Bytes(name.Length == 0 ? "." : name), FileTree.DirectoryOnly);
            if (number < 0)
                throw new ErrnoException($"cannot open {path}", -number);
            var directory = new FileDescriptor(number);
            using HeldDescriptor held = directory.Hold();
            if (FileTree.GetStatus(held, out FileStatus status) == 0 && FileOwner.IsOwn(status.UserId, status.Mode))
                return new CacheDirectory(path, directory);
            directory.Dispose();
        }
        catch (ErrnoException e)
        {
            throw new VmmException($"--kernel-cache: {e.Message}: name a directory of yours, or off", e);
        }
        throw new VmmException($"--kernel-cache: {path} is another user's, or others may write to it: name a directory that only you may write to, or off");
    }

    /// <summary>The name of what <paramref name="source"/> unpacks to.</summary>
    public static string NameOf(in FileVersion source) =>
        $"{source.Device:x}-{source.Inode:x}-{source.Size:x}-{source.Modified.Seconds:x}.{source.Modified.Nanoseconds:x}-{source.Changed.Seconds:x}.{source.Changed.Nanoseconds:x}{Suffix}";

    /// <summary>Opens a file of this directory; null if it is not there, or is not one of this user's to which nobody else may write.</summary>
    public RegularFile? TryOpen(string name)
    {
        try
        {
            var file = RegularFile.OpenRead(_directory, name);
            if (file.IsOwn)
                return file;
            file.Dispose();
        }
        catch (Exception e) when (e is ErrnoException or InvalidDataException)
        {
            // Nothing that can be used.
        }
        return null;
    }

    /// <summary>Makes a file that has no name that is looked for, until <see cref="Rename"/>.</summary>
    /// <exception cref="ErrnoException">It cannot be made.</exception>
    public FileDescriptor Create(out string name)
    {
        name = $"{UnfinishedPrefix}{SystemRandom.NextUInt64():x16}";
        using HeldDescriptor held = _directory.Hold();
        int number = FileTree.Open(held, Bytes(name), FileTree.WriteOnly | FileTree.Create | FileTree.Exclusive, OwnerReadWrite);
        return number >= 0 ? new FileDescriptor(number) : throw new ErrnoException($"cannot make a file in {_path}", -number);
    }

    /// <summary>Gives a file another name, in the place of whatever has it.</summary>
    /// <exception cref="ErrnoException">It is not possible.</exception>
    public void Rename(string name, string newName)
    {
        using HeldDescriptor held = _directory.Hold();
        int result = FileTree.Rename(held, Bytes(name), held, Bytes(newName), 0);
        if (result < 0)
            throw new ErrnoException($"cannot rename {name} in {_path}", -result);
    }

    /// <summary>Removes a file, if it is there.</summary>
    public void Remove(string name)
    {
        using HeldDescriptor held = _directory.Hold();
        _ = FileTree.Remove(held, Bytes(name), isDirectory: false);
    }

    /// <summary>Removes files of the cache that nobody finishes, and those that were not used for longest, until at most <paramref name="maxSize"/> bytes are left. The directory may be one in
    /// which the user has other files, too: these stay.</summary>
    /// <param name="now">The time, in seconds since 1970.</param>
    /// <param name="maxSize">In all.</param>
    public void Trim(long now, ulong maxSize = MaxSize)
    {
        var files = new List<(long Used, ulong Size, string Name)>();
        using HeldDescriptor held = _directory.Hold();
        foreach (string path in Directory.EnumerateFiles($"/proc/self/fd/{held.Number}"))
        {
            string name = Path.GetFileName(path);
            bool isUnfinished = IsUnfinished(name);
            if ((!isUnfinished && !IsFinished(name)) || FileTree.GetStatus(held, Bytes(name), out FileStatus status) < 0)
                continue;
            long used = Math.Max(status.Accessed.Seconds, status.Modified.Seconds);
            if (!isUnfinished)
                files.Add((used, status.Size, name));
            else if (now - used > Abandoned)
                Remove(name);
        }
        files.Sort(static (one, other) => other.Used.CompareTo(one.Used));
        ulong total = 0;
        foreach ((_, ulong size, string name) in files)
        {
            total += size;
            if (total > maxSize)
                Remove(name);
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _directory.Dispose();

    /// <summary>The user's own directory, which is made where it can be.</summary>
    /// <param name="cache">$XDG_CACHE_HOME.</param>
    /// <param name="home">$HOME.</param>
    /// <exception cref="VmmException">Neither says where.</exception>
    internal static string MakeOwn(string? cache, string? home)
    {
        if (string.IsNullOrEmpty(cache) || !Path.IsPathFullyQualified(cache))   // "must be absolute" (XDG Base Directory Specification 0.8)
        {
            if (string.IsNullOrEmpty(home) || !Path.IsPathFullyQualified(home))
                throw new VmmException("--kernel-cache: neither XDG_CACHE_HOME nor HOME names a directory");
            cache = Path.Combine(home, ".cache");
        }
        string path = Path.Combine(cache, "vmm");
        if (!FileKind.IsDirectory(path))
        {
            TryMake(cache);
            TryMake(path);
        }
        return path;
    }

    // Whether a name is one of Create.
    private static bool IsUnfinished(string name) =>
        name.StartsWith(UnfinishedPrefix, StringComparison.Ordinal) && name.Length == UnfinishedPrefix.Length + MaxDigits
            && !name.AsSpan(UnfinishedPrefix.Length).ContainsAnyExcept(s_hexDigits);

    // Whether a name is one of NameOf: seven numbers, and what stands behind each.
    private static bool IsFinished(string name)
    {
        ReadOnlySpan<char> rest = name;
        foreach (string behind in (ReadOnlySpan<string>)["-", "-", "-", ".", "-", ".", Suffix])
        {
            int digits = rest.IndexOfAnyExcept(s_hexDigits);
            if (digits is < 1 or > MaxDigits || !rest[digits..].StartsWith(behind, StringComparison.Ordinal))
                return false;
            rest = rest[(digits + behind.Length)..];
        }
        return rest.IsEmpty;
    }

    private static void TryMake(string path)
    {
        try
        {
            PrivateDirectory.Make(path);
        }
        catch (ErrnoException)
        {
            // It is there, or opening it will tell.
        }
    }

    private static byte[] Bytes(string name) => ByteText.Encode(name + '\0');
}
