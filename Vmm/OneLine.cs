using System.Globalization;
using System.Text;

namespace Vmm;

/// <summary>Keeps messages on one line, and keeps what a terminal obeys, or shows as something else, in file names or values from reaching it: control characters, those of format (that
/// turn the direction of writing, or are not seen), separators of lines, and bytes that are no text.</summary>
internal static class OneLine
{
    /// <summary><paramref name="text"/> with each such character as <c>\n</c>, <c>\t</c>, <c>\xNN</c> or <c>\uNNNN</c>.</summary>
    public static string Of(string text) => Replace(text, Escape);

    /// <summary><paramref name="text"/> with what <paramref name="escape"/> makes of each such character.</summary>
    public static string Replace(string text, Func<string, string> escape)
    {
        StringBuilder? line = null;
        for (int i = 0, length; i < text.Length; i += length)
        {
            bool isWhole = Rune.TryGetRuneAt(text, i, out Rune rune);
            length = isWhole ? rune.Utf16SequenceLength : 1;
            if (isWhole && !IsHidden(rune))
            {
                line?.Append(text, i, length);
                continue;
            }
            line ??= new StringBuilder(text, 0, i, text.Length + 16);
            line.Append(escape(text.Substring(i, length)));
        }
        return line?.ToString() ?? text;
    }

    private static bool IsHidden(Rune rune) =>
        Rune.GetUnicodeCategory(rune) is UnicodeCategory.Control or UnicodeCategory.Format or UnicodeCategory.LineSeparator or UnicodeCategory.ParagraphSeparator;

    private static string Escape(string part) => part[0] switch
    {
        '\n' => "\\n",
        '\t' => "\\t",
        < '\u0100' and char control when char.IsControl(control) => $"\\x{(int)control:x2}",
        >= '\udc80' and <= '\udcff' and char odd => $"\\x{odd & 0xFF:x2}",      // a byte, by ByteText
        _ when part.Length == 2 => $"\\U{char.ConvertToUtf32(part[0], part[1]):x8}",
        _ => $"\\u{(int)part[0]:x4}",
    };
}
