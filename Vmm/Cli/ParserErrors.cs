using CommandLine;

namespace Vmm.Cli;

/// <summary>The parser's errors in one line each.</summary>
internal static class ParserErrors
{
    /// <summary>The exception for <paramref name="error"/> about <paramref name="args"/>.</summary>
    public static UsageException Explain(Error error, string[] args) => error switch
    {
        BadVerbSelectedError bad => UnknownVerb(bad.Token),
        UnknownOptionError unknown => new UsageException($"{Dashed(unknown.Token, args)}: unknown option{Hint(args)}"),
        RepeatedOptionError repeated => new UsageException($"--{repeated.NameInfo.LongName}: given more than once{Hint(args)}"),
        MissingRequiredOptionError missing => new UsageException($"--{missing.NameInfo.LongName} is missing{Hint(args)}"),
        NamedError named => new UsageException($"--{named.NameInfo.LongName}: cannot be understood ({error.Tag}){Hint(args)}"),
        TokenError token => new UsageException($"'{token.Token}' cannot be understood{Hint(args)}"),
        _ => new UsageException($"the arguments cannot be understood ({error.Tag}){Hint(args)}"),
    };

    /// <summary>The exception for an option at the end of the line that wants a value.</summary>
    public static UsageException MissingValue(string[] args) => new($"{args[^1]}: its value is missing{Hint(args)}");

    /// <summary>The exception for an argument that no option claims.</summary>
    public static UsageException Unexpected(string argument, string[] args) =>
        new($"'{argument}': unexpected argument: values follow an option{Hint(args)}");

    /// <summary>The exception for a verb that does not exist.</summary>
    public static UsageException UnknownVerb(string verb) =>
        new($"'{verb}' is not a command: choose one of {string.Join(", ", Array.ConvertAll(Verbs.All, known => known.Name))} (see vmm --help)");

    // The parser's tokens have lost their dashes.
    private static string Dashed(string token, string[] args)
    {
        string name = "--" + token;
        bool isLong = Array.Exists(args, arg => arg == name || arg.StartsWith(name + "=", StringComparison.Ordinal));
        return isLong ? name : "-" + token;
    }

    private static string Hint(string[] args) => $" (see vmm {args[0]} --help)";
}
