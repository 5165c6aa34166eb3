using System.Buffers;
using System.Text;
using Vmm.Vhost.Memory;

namespace Vmm.Boot;

/// <summary>The kernel's command line in guest memory.</summary>
internal static class KernelCommandLine
{
    /// <summary>What x86 kernels take when their file does not say (COMMAND_LINE_SIZE 2048 with its null).</summary>
    public const uint DefaultLimit = 2047;

    private static readonly SearchValues<char> s_usable = SearchValues.Create(['\t', '\n', .. Enumerable.Range(' ', '~' - ' ' + 1).Select(character => (char)character)]);

    /// <summary>Refuses what the kernel would cut or misread.</summary>
    /// <param name="text">The command line.</param>
    /// <param name="limit">The longest the kernel takes, in bytes without the null (cmdline_size).</param>
    /// <exception cref="VmmException">Too long, or not plain ASCII.</exception>
    public static void Check(string text, uint limit)
    {
        ulong room = Math.Min(limit, BootLayout.CommandLineRoom - 1);
        if ((ulong)text.Length > room)
            throw new VmmException($"--cmdline: {text.Length} characters with what vmm adds, but this kernel takes at most {room} (cmdline_size): shorten it");
        if (FindUnusable(text) is string problem)
            throw new VmmException($"--cmdline: {problem}");
    }

    /// <summary>Says what in <paramref name="text"/> the kernel would misread; null if nothing.</summary>
    public static string? FindUnusable(string text)
    {
        int i = text.AsSpan().IndexOfAnyExcept(s_usable);
        return i < 0 ? null : $"character U+{(Rune.TryGetRuneAt(text, i, out Rune rune) ? rune.Value : text[i]):X4} after '{text[Math.Max(0, i - 16)..i]}': only printable ASCII, tabs and line feeds can be passed on";
    }

    /// <summary>Writes the checked <paramref name="text"/> with its null to <see cref="BootLayout.CommandLine"/>.</summary>
    public static void Write(GuestMemory memory, string text)
    {
        Span<byte> target = memory.Slice(new(BootLayout.CommandLine), text.Length + 1);
        Encoding.ASCII.GetBytes(text, target);
        target[^1] = 0;
    }
}
