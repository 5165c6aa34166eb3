namespace Vmm.Cli;

/// <summary>Keeps messages on one line, and keeps control characters in file names or values from reaching the terminal.</summary>
internal static class OneLine
{
    /// <summary><paramref name="text"/> with every control character as <c>\n</c>, <c>\t</c> or <c>\xNN</c>.</summary>
    public static string Of(string text)
    {
        int first = 0;
        while (first < text.Length && !char.IsControl(text[first]))
            first++;
        if (first == text.Length)
            return text;

        var line = new System.Text.StringBuilder(text, 0, first, text.Length + 16);
        foreach (char c in text.AsSpan(first))
        {
            _ = c switch
            {
                '\n' => line.Append("\\n"),
                '\t' => line.Append("\\t"),
                _ when char.IsControl(c) => line.Append($"\\x{(int)c:x2}"),
                _ => line.Append(c),
            };
        }
        return line.ToString();
    }
}
