namespace Vmm.Cli;

/// <summary>Reads a command line that is right without the parser's library, which looks at every option by reflection: half of what <c>vmm</c> does before it opens its
/// first file. Whatever is unusual or wrong is left to the library, which also has the messages for it.</summary>
internal static class DirectParser
{
    private const string Dashes = "--";

    /// <summary>Sets what <paramref name="args"/> say.</summary>
    /// <param name="options">New options.</param>
    /// <param name="args">The arguments behind the verb and before a command.</param>
    /// <param name="repeatable">The repeatable options, with their dashes.</param>
    /// <param name="required">An option that must be there, without dashes; null for none.</param>
    /// <exception cref="UsageException">A value cannot be put together with others.</exception>
    /// <returns>False where the library has to look at it; the options are of no use then.</returns>
    public static bool TryParse(IDirectOptions options, ReadOnlySpan<string> args, string[] repeatable, string? required)
    {
        var values = new Dictionary<string, string>();
        var switches = new HashSet<string>();
        for (int i = 0; i < args.Length; i++)
        {
            if (!args[i].StartsWith(Dashes, StringComparison.Ordinal))
                return false;
            int equals = args[i].IndexOf('=', StringComparison.Ordinal);
            string name = equals < 0 ? args[i][Dashes.Length..] : args[i][Dashes.Length..equals];
            if (equals < 0 && options.TrySwitch(name))
            {
                if (!switches.Add(name))
                    return false;
                continue;
            }
            if (equals < 0 && ++i == args.Length)
                return false;
            string value = equals < 0 ? args[i] : args[i][(equals + 1)..];
            bool isSecond = values.TryGetValue(name, out string? before);
            if (Array.IndexOf(repeatable, Dashes + name) >= 0)
                value = RepeatableOptions.Append(Dashes + name, before, value);
            else if (isSecond)
                return false;
            values[name] = value;
        }
        foreach ((string name, string value) in values)
        {
            if (!options.TrySet(name, value))
                return false;
        }
        return required is null || values.ContainsKey(required);
    }
}
