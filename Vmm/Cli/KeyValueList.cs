using System.Text;

namespace Vmm.Cli;

/// <summary>The value of an option as <c>key=value,…</c>, by cloud-hypervisor's conventions: double quotes protect commas in a value
/// and are not part of it.</summary>
internal sealed class KeyValueList
{
    private readonly string _option;
    private readonly List<(string Key, string Value)> _pairs = [];

    private KeyValueList(string option) => _option = option;

    /// <summary>Takes <paramref name="text"/>, the value of <paramref name="option"/>, apart.</summary>
    /// <exception cref="UsageException">A key is unknown or given twice, a quote stays open, or a part has no value.</exception>
    public static KeyValueList Parse(string option, string text, params ReadOnlySpan<string> allowedKeys)
    {
        var list = new KeyValueList(option);
        int start = 0;
        while (start <= text.Length)
        {
            int end = FindEnd(option, text, start);
            list.Add(text[start..end], allowedKeys);
            start = end + 1;
        }
        return list;
    }

    /// <summary>The list <paramref name="text"/> with other values in it. Neither its keys nor its values are checked.</summary>
    /// <param name="option">The option, for messages.</param>
    /// <param name="text">The list.</param>
    /// <param name="map">What stands for a value, with quotes where it needs them, by its key and the value without its quotes; null for what was written.</param>
    /// <exception cref="UsageException">A quote stays open.</exception>
    public static string Map(string option, string text, Func<string, string, string?> map)
    {
        var result = new StringBuilder();
        for (int start = 0, end; start <= text.Length; start = end + 1)
        {
            end = FindEnd(option, text, start);
            string part = text[start..end];
            int equals = part.IndexOf('=', StringComparison.Ordinal);
            string? value = equals < 0 ? null : map(part[..equals], Unquoted(part[(equals + 1)..]));
            result.Append(start == 0 ? "" : ",").Append(value is null ? part : $"{part[..equals]}={value}");
        }
        return result.ToString();
    }

    /// <summary>The value of <paramref name="key"/>, if the user gave one.</summary>
    public OptionValue? Find(string key)
    {
        foreach ((string candidate, string value) in _pairs)
        {
            if (candidate == key)
                return new OptionValue(_option, key, value);
        }
        return null;
    }

    /// <summary>Narrows what was allowed, where that depends on a value.</summary>
    /// <exception cref="UsageException">A key is none of <paramref name="keys"/>.</exception>
    public void AllowOnly(params ReadOnlySpan<string> keys)
    {
        foreach ((string key, _) in _pairs)
        {
            if (!keys.Contains(key))
                throw new UsageException($"{_option}: unknown key '{key}': {Allowed(keys)}");
        }
    }

    private static int FindEnd(string option, string text, int start)
    {
        bool quoted = false;
        for (int i = start; i < text.Length; i++)
        {
            if (text[i] == '"')
                quoted = !quoted;
            else if (text[i] == ',' && !quoted)
                return i;
        }
        return !quoted ? text.Length : throw new UsageException($"{option}: '{text}' has a quote (\") that is not closed");
    }

    private void Add(string part, ReadOnlySpan<string> allowedKeys)
    {
        int equals = part.IndexOf('=');
        string key = equals < 0 ? part : part[..equals];
        if (key.Length == 0 || (equals < 0 && !allowedKeys.Contains(key)))
            throw new UsageException($"{_option}: '{part}' is not of the form key=value: {Allowed(allowedKeys)}");
        if (!allowedKeys.Contains(key))
            throw new UsageException($"{_option}: unknown key '{key}': {Allowed(allowedKeys)}");
        if (equals < 0 || equals == part.Length - 1)
            throw new UsageException($"{_option}: key '{key}' has no value: write {key}=VALUE");
        if (Find(key) is not null)
            throw new UsageException($"{_option}: key '{key}' is given more than once");
        _pairs.Add((key, Unquoted(part[(equals + 1)..])));
    }

    private static string Unquoted(string text) => text.Replace("\"", "", StringComparison.Ordinal);

    private static string Allowed(ReadOnlySpan<string> keys)
    {
        if (keys.Length == 1)
            return $"allowed is {keys[0]}";
        var text = new StringBuilder("allowed are ");
        for (int i = 0; i < keys.Length; i++)
            text.Append(i == 0 ? "" : ", ").Append(keys[i]);
        return text.ToString();
    }
}
