using Vmm.Cli.Exec;

namespace Vmm.Cli;

/// <summary>Options that may be given several times, once for each device. The parser knows of one value only, so theirs are put together
/// before it, with a character between them that no value may have.</summary>
internal static class RepeatableOptions
{
    private const char Separator = '\x1f';

    /// <summary>Puts the values of each repeatable option into its first place.</summary>
    /// <param name="args">The verb and its options.</param>
    /// <param name="switches">The options without a value, with their dashes.</param>
    /// <param name="names">The repeatable options, with their dashes.</param>
    /// <exception cref="UsageException">A value of one has the character in it that is put between them.</exception>
    public static string[] Join(string[] args, string[] switches, params ReadOnlySpan<string> names)
    {
        var joined = new List<string>(args.Length);
        var places = new Dictionary<string, int>();
        for (int i = 0; i < args.Length; i++)
        {
            (string name, string? value) = Split(args[i]);
            bool takesNext = value is null && !switches.Contains(name) && args[i].StartsWith("--", StringComparison.Ordinal) && i + 1 < args.Length;
            if (takesNext)
                value = args[++i];
            if (value is null || !names.Contains(name))
                joined.AddRange(takesNext ? [name, value!] : [args[i]]);
            else if (places.TryGetValue(name, out int place))
                joined[place] = Append(name, joined[place], value);
            else
                places[name] = Add(joined, $"{name}={Append(name, null, value)}");
        }
        return [.. joined];
    }

    /// <summary>The values that <see cref="Join"/> put together; none for an option that was not given.</summary>
    public static string[] Values(string? joined) => joined is null ? [] : joined.Split(Separator);

    /// <summary>The value that <see cref="Values"/> takes apart; null for none.</summary>
    /// <param name="option">The option, for messages.</param>
    /// <param name="values">The values.</param>
    /// <exception cref="UsageException">One has the character in it that is put between them.</exception>
    public static string? ToValue(string option, params ReadOnlySpan<string> values)
    {
        string? joined = null;
        foreach (string value in values)
            joined = Append(option, joined, value);
        return joined;
    }

    /// <summary>The value <paramref name="joined"/>, null for none yet, with <paramref name="value"/> as one more.</summary>
    /// <param name="option">The option, for messages.</param>
    /// <param name="joined">What was put together so far.</param>
    /// <param name="value">The value.</param>
    /// <exception cref="UsageException">It has the character in it that is put between them.</exception>
    public static string Append(string option, string? joined, string value)
    {
        if (value.Contains(Separator, StringComparison.Ordinal))
        {
            int equals = value.IndexOf('=', StringComparison.Ordinal);
            string way = option == EnvironmentOption.Name && equals > 0 ? $"set the variable here (export {value[..equals]}), and write {option} {value[..equals]}" : "leave that out";
            throw new OptionValue(option, null, value).Refuse($"has the control character 0x1F in it: {way}");
        }
        return joined is null ? value : joined + Separator + value;
    }

    private static int Add(List<string> list, string item)
    {
        list.Add(item);
        return list.Count - 1;
    }

    private static (string Name, string? Value) Split(string arg)
    {
        int equals = arg.StartsWith("--", StringComparison.Ordinal) ? arg.IndexOf('=') : -1;
        return equals < 0 ? (arg, null) : (arg[..equals], arg[(equals + 1)..]);
    }
}
