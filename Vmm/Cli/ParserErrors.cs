using CommandLine;

namespace Vmm.Cli;

/// <summary>The parser's errors in one line each.</summary>
internal static class ParserErrors
{
    /// <summary>The exception for <paramref name="error"/> about <paramref name="args"/> of <paramref name="command"/>.</summary>
    public static UsageException Explain(Error error, string[] args, Verbs.Command command) => error switch
    {
        BadVerbSelectedError bad => UnknownVerb(bad.Token, command),
        _ => Explain(error, args, $"{command.Name} {args[0]}"),
    };

    private static UsageException Explain(Error error, string[] args, string verb) => error switch
    {
        UnknownOptionError unknown => new UsageException($"{Dashed(unknown.Token, args)}: unknown option{Hint(verb)}"),
        RepeatedOptionError repeated => new UsageException($"--{repeated.NameInfo.LongName}: given more than once{Hint(verb)}"),
        MissingRequiredOptionError missing => new UsageException($"--{missing.NameInfo.LongName} is missing{Guess(missing.NameInfo.LongName, args)}{Hint(verb)}"),
        NamedError named => new UsageException($"--{named.NameInfo.LongName}: cannot be understood ({error.Tag}){Hint(verb)}"),
        TokenError token => new UsageException($"'{token.Token}' cannot be understood{Hint(verb)}"),
        _ => new UsageException($"the arguments cannot be understood ({error.Tag}){Hint(verb)}"),
    };

    /// <summary>The exception for an option at the end of the line that wants a value.</summary>
    public static UsageException MissingValue(string[] args, string verb) => new($"{args[^1]}: its value is missing{Hint(verb)}");

    /// <summary>The exception for an argument that no option claims.</summary>
    public static UsageException Unexpected(string argument, string verb) =>
        new($"'{argument}': unexpected argument: {(verb.EndsWith(" exec", StringComparison.Ordinal) ? "write -- before the command" : "values follow an option")}{Hint(verb)}");

    /// <summary>The exception for a verb that does not exist.</summary>
    public static UsageException UnknownVerb(string verb, Verbs.Command command)
    {
        string kind = command.Verbs == Verbs.Backends ? "device" : "command";
        string choices = string.Join(", ", Array.ConvertAll(command.Verbs, known => known.Name));
        return new UsageException($"'{verb}' is not a {kind}: choose one of {choices} (see {command.Name} --help)");
    }

    // The parser's tokens have lost their dashes.
    private static string Dashed(string token, string[] args)
    {
        string name = "--" + token;
        bool isLong = Array.Exists(args, arg => arg == name || arg.StartsWith(name + "=", StringComparison.Ordinal));
        return isLong ? name : "-" + token;
    }

    // Somebody who writes the file alone is told where it goes.
    private static string Guess(string option, string[] args) => args is [_, ['-', ..], ..] or [_] ? "" : $": write --{option} {args[1]}";

    private static string Hint(string verb) => $" (see {verb} --help)";
}
