using CommandLine;
using CommandLine.Text;

namespace Vmm.Cli;

/// <summary>The verbs of <c>vmm</c>, and the way from arguments to the options of one of them.</summary>
/// <remarks>The parser finds verbs and options by reflection. <see cref="Program"/> keeps each options class from being trimmed.</remarks>
internal static class Verbs
{
    /// <summary>Every verb with the class of its options.</summary>
    public static readonly (string Name, Type Options)[] All = [("run", typeof(RunOptions)), ("check", typeof(CheckOptions))];

    private const int HelpWidth = 100;

    // Put after the arguments. The parser quietly ignores an option that is short of its value: that option now swallows this, which no
    // argument can be, and its absence from what is left over tells.
    private const string End = "\0";

    /// <summary>Reads <paramref name="args"/>.</summary>
    /// <returns>The options of the verb that was asked for, or the text (help or version) that was asked for instead.</returns>
    /// <exception cref="UsageException">The arguments make no sense; the message names the wrong one.</exception>
    public static object Parse(string[] args)
    {
        // No HelpWriter: help is made only when asked for. By getopt's rules a value may begin with a dash.
        using var parser = new Parser(settings =>
        {
            settings.HelpWriter = null;
            settings.GetoptMode = true;
            settings.AllowMultiInstance = false;
            settings.MaximumDisplayWidth = HelpWidth;
        });
        args = RepeatableOptions.Join(
            args, NetOption.Name, FsOption.Name, DiskOption.Name, ScsiOption.Name, VdpaOption.Name, VhostUserOption.Name);
        ParserResult<object> result = parser.ParseArguments(args.Length > 1 ? [.. args, End] : args, Candidates(args));
        if (result.Tag != ParserResultType.Parsed)
            return ReadErrors(args, result);
        CheckRest(args, ((IVerbOptions)result.Value).Rest);
        return result.Value;
    }

    /// <summary>What <c>vmm --version</c> prints.</summary>
    public static string Version() => $"vmm {typeof(Verbs).Assembly.GetName().Version?.ToString(3)}";

    private static void CheckRest(string[] args, IEnumerable<string> rest)
    {
        if (args.Length == 1)
            return;
        foreach (string argument in rest)
        {
            if (argument == End)
                return;
            throw ParserErrors.Unexpected(argument, args);
        }
        throw ParserErrors.MissingValue(args);
    }

    // The parser looks closely at every class it is given: show it only the one that the first argument names.
    private static Type[] Candidates(string[] args)
    {
        if (args.Length > 0)
        {
            foreach ((string name, Type options) in All)
            {
                if (name == args[0])
                    return [options];
            }
        }
        return Array.ConvertAll(All, verb => verb.Options);
    }

    private static string ReadErrors(string[] args, ParserResult<object> result)
    {
        Error error = result.Errors.First();
        return error switch
        {
            VersionRequestedError => Version() + "\n",
            HelpVerbRequestedError { Matched: false } when args.Length > 1 => throw ParserErrors.UnknownVerb(args[1]),
            UnknownOptionError { Token: "help" or "version" } asked => (string)Parse([args[0], "--" + asked.Token]),
            HelpVerbRequestedError { Matched: true } help => (string)Parse([help.Verb, "--help"]),
            HelpRequestedError or HelpVerbRequestedError or NoVerbSelectedError => Help(result, args),
            _ => throw ParserErrors.Explain(error, args),
        };
    }

    private static string Help(ParserResult<object> result, string[] args)
    {
        bool isIndex = result.Errors.First() is not HelpRequestedError;
        HelpText help = HelpText.AutoBuild(
            result,
            help =>
            {
                help.Heading = Version();
                help.Copyright = "";
                help.AdditionalNewLineAfterOption = false;
                help.AddDashesToOption = true;
                help.AddPreOptionsLine($"Usage: vmm {(isIndex ? "COMMAND" : args[0])} [OPTION...]");
                return help;
            },
            example => example,
            verbsIndex: isIndex,
            HelpWidth);
        return help.ToString().TrimEnd() + "\n";
    }
}
