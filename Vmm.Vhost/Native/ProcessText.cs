using System.Runtime.InteropServices;

namespace Vmm.Vhost.Native;

/// <summary>What this process was started with, as <see cref="ByteText"/>. The runtime puts U+FFFD in the place of bytes that are not UTF-8; only then are they read again.</summary>
public static unsafe partial class ProcessText
{
    private const char Replaced = '\uFFFD';
    private const int MaxPath = 4096;       // PATH_MAX

    /// <summary>The arguments that <paramref name="args"/>, the last ones of this process, really are.</summary>
    /// <exception cref="VhostException">/proc/self/cmdline cannot be read.</exception>
    public static string[] Arguments(string[] args)
    {
        if (!Array.Exists(args, WasReplaced))
            return args;
        string[] all = Split(Read("/proc/self/cmdline"));
        return all.Length >= args.Length ? all[^args.Length..] : args;
    }

    /// <summary>The value of variable <paramref name="name"/>; null if there is none.</summary>
    /// <exception cref="VhostException">/proc/self/environ cannot be read.</exception>
    public static string? Variable(string name)
    {
        string? value = Environment.GetEnvironmentVariable(name);
        if (value is null || !WasReplaced(value))
            return value;
        string start = name + "=";
        return Array.Find(Split(Read("/proc/self/environ")), variable => variable.StartsWith(start, StringComparison.Ordinal)) is string found ? found[start.Length..] : value;
    }

    /// <summary>The working directory.</summary>
    /// <exception cref="ErrnoException">There is none any more.</exception>
    public static string CurrentDirectory()
    {
        string path = Environment.CurrentDirectory;
        if (!WasReplaced(path))
            return path;
        Span<byte> bytes = stackalloc byte[MaxPath];
        // SAFETY: pinned for the call, which writes at most that many bytes.
        fixed (byte* pointer = bytes)
        {
            if (GetCurrentDirectory(pointer, MaxPath) == null)
                throw new ErrnoException("getcwd", Marshal.GetLastPInvokeError());
        }
        return ByteText.Decode(bytes[..bytes.IndexOf((byte)0)]);
    }

    /// <summary>The texts of <paramref name="bytes"/>, each of which ends with a null byte.</summary>
    internal static string[] Split(ReadOnlySpan<byte> bytes)
    {
        List<string> texts = [];
        for (int end; (end = bytes.IndexOf((byte)0)) >= 0; bytes = bytes[(end + 1)..])
            texts.Add(ByteText.Decode(bytes[..end]));
        return [.. texts];
    }

    private static byte[] Read(string path)
    {
        try
        {
            return File.ReadAllBytes(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new VhostException($"an argument or a variable is not UTF-8, and is to be read from {path}: {e.Message}", e);
        }
    }

    private static bool WasReplaced(string text) => text.Contains(Replaced, StringComparison.Ordinal);

    [LibraryImport("libc", EntryPoint = "getcwd", SetLastError = true)]
    private static partial byte* GetCurrentDirectory(byte* buffer, nuint size);
}
