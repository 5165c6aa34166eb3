using System.Diagnostics.CodeAnalysis;
using System.Reflection;
using CommandLine;
using CommandLine.Text;
using Vmm.Cli.Backend;
using Vmm.Cli.Exec;

namespace Vmm.Cli;

/// <summary>The verbs of <c>vmm</c>, and the way from arguments to the options of one of them.</summary>
/// <remarks>The parser finds verbs and options by reflection. <see cref="Program"/> keeps each options class from being trimmed.</remarks>
internal static class Verbs
{
    /// <summary>Every verb with the class of its options.</summary>
    public static readonly (string Name, Type Options)[] All =
        [("exec", typeof(ExecOptions)), ("run", typeof(RunOptions)), ("check", typeof(CheckOptions)), (Backend, typeof(BackendIndex))];

    /// <summary>The devices of <c>vmm backend</c>, in the same way.</summary>
    public static readonly (string Name, Type Options)[] Backends =
    [
        ("blk", typeof(BlkBackendOptions)), ("net", typeof(NetBackendOptions)), ("rng", typeof(RngBackendOptions)), ("console", typeof(ConsoleBackendOptions)),
        ("vsock", typeof(VsockBackendOptions)), ("fs", typeof(FsBackendOptions)),
    ];

    private const string Program = "vmm";
    private const string Backend = "backend";

    private const int HelpWidth = 100;

    /// <summary>What stands before a command.</summary>
    private const string CommandMark = "--";

    private static readonly string[] s_repeatable =
    [
        NetOption.Name, FsOption.Name, DiskOption.Name, ScsiOption.Name, VdpaOption.Name, VhostUserOption.Name, BindOption.Name, BindOption.ReadOnlyName,
        EnvironmentOption.Name, ExecNetwork.PortOption, FsBackendOptions.TranslateUidName, FsBackendOptions.TranslateGidName,
        FsBackendOptions.UidMapName, FsBackendOptions.GidMapName,
    ];

    // Put after the arguments. The parser quietly ignores an option that is short of its value: that option now swallows this, which no
    // argument can be, and its absence from what is left over tells.
    private const string End = "\0";

    /// <summary>Reads <paramref name="args"/>.</summary>
    /// <returns>The options of the verb that was asked for, or the text (help or version) that was asked for instead.</returns>
    /// <exception cref="UsageException">The arguments make no sense; the message names the wrong one.</exception>
    public static object Parse(string[] args) => args switch
    {
        [Backend, .. string[] rest] => Parse(new Command($"{Program} {Backend}", Backends), rest),
        ["help", Backend, .. string[] rest] => Parse(new Command($"{Program} {Backend}", Backends), ["help", .. rest]),
        _ => ParseDirectly(args) ?? ParseByLibrary(args),
    };

    /// <summary>Whether <paramref name="args"/> name no verb, or no device of <c>backend</c>: who calls the program like this is told what there is.</summary>
    public static bool LacksVerb(string[] args) => args is [] or [Backend];

    /// <summary>Reads <paramref name="args"/> by the parser's library; none of them is for <c>backend</c>.</summary>
    /// <exception cref="UsageException">The arguments make no sense.</exception>
    internal static object ParseByLibrary(string[] args) => Parse(new Command(Program, All), args);

    private static MachineOptions? ParseDirectly(string[] args)
    {
        if (args is not ["run" or "exec", ..])
            return null;
        bool isRun = args[0] == "run";
        int end = isRun ? -1 : Array.IndexOf(args, CommandMark);
        MachineOptions options = isRun ? new RunOptions() : new ExecOptions { Command = end < 0 ? [] : args[(end + 1)..] };
        return DirectParser.TryParse(options, args.AsSpan(1..(end < 0 ? args.Length : end)), s_repeatable, isRun ? "kernel" : null) ? options : null;
    }

    private static object Parse(Command command, string[] args)
    {
        // What a back-end can do is asked for whatever else is said (vhost-user.rst, "Backend program conventions").
        if (command.Verbs == Backends && args.Length > 1 && args.Contains(BackendCapabilities.Option) && BackendCapabilities.Find(args[0]) is string text)
            return text;
        // No HelpWriter: help is made only when asked for. By getopt's rules a value may begin with a dash.
        using var parser = new Parser(settings =>
        {
            settings.HelpWriter = null;
            settings.GetoptMode = true;
            settings.AllowMultiInstance = false;
            settings.MaximumDisplayWidth = HelpWidth;
        });
        Type[] candidates = Candidates(command, args);
        string[] behind = [];
        if (candidates is [Type options])
        {
            if (options.IsAssignableTo(typeof(ICommandOptions)) && Array.IndexOf(args, CommandMark) is int mark and >= 0)
                (args, behind) = (args[..mark], args[(mark + 1)..]);
            string[] switches = Switches(options);
            if (options == typeof(FsBackendOptions))
                args = FsCommandLine.Expand(args, switches);
            CheckSwitches(switches, args);
            args = RepeatableOptions.Join(args, switches, s_repeatable);
        }
        ParserResult<object> result = parser.ParseArguments(args.Length > 1 ? [.. args, End] : args, candidates);
        if (result.Tag != ParserResultType.Parsed)
            return ReadErrors(command, args, result);
        CheckRest(command, args, ((IVerbOptions)result.Value).Rest);
        if (result.Value is ICommandOptions withCommand)
            withCommand.Command = behind;
        return result.Value;
    }

    /// <summary>What <c>vmm --version</c> prints.</summary>
    public static string Version() => $"vmm {typeof(Verbs).Assembly.GetName().Version?.ToString(3)}";

    // Options without a value, with their dashes.
    [UnconditionalSuppressMessage("Trimming", "IL2070", Justification = "Program keeps the properties of every options class.")]
    private static string[] Switches(Type options)
    {
        List<string> names = [];
        foreach (PropertyInfo property in options.GetProperties())
        {
            if (property.PropertyType == typeof(bool) && property.GetCustomAttribute<OptionAttribute>()?.LongName is string name)
                names.Add($"--{name}");
        }
        return [.. names];
    }

    // The parser takes any value of a switch, "off" for one, and turns it on.
    private static void CheckSwitches(string[] switches, string[] args)
    {
        foreach (string name in switches)
        {
            if (Array.Exists(args, arg => arg.StartsWith($"{name}=", StringComparison.Ordinal)))
                throw new UsageException($"{name}: takes no value: leave the option out for off");
        }
    }

    private static void CheckRest(Command command, string[] args, IEnumerable<string> rest)
    {
        if (args.Length == 1)
            return;
        foreach (string argument in rest)
        {
            if (argument == End)
                return;
            throw ParserErrors.Unexpected(argument, $"{command.Name} {args[0]}");
        }
        throw ParserErrors.MissingValue(args, $"{command.Name} {args[0]}");
    }

    // The parser looks closely at every class it is given: show it only the one that the first argument names.
    private static Type[] Candidates(Command command, string[] args)
    {
        if (args.Length > 0)
        {
            foreach ((string name, Type options) in command.Verbs)
            {
                if (name == args[0])
                    return [options];
            }
        }
        return Array.ConvertAll(command.Verbs, verb => verb.Options);
    }

    private static string ReadErrors(Command command, string[] args, ParserResult<object> result)
    {
        Error error = result.Errors.First();
        return error switch
        {
            VersionRequestedError => Version() + "\n",
            HelpVerbRequestedError { Matched: false } when args.Length > 1 => throw ParserErrors.UnknownVerb(args[1], command),
            UnknownOptionError { Token: "h" } => (string)Parse(command, [args[0], "--help"]),
            BadVerbSelectedError { Token: "-h" } => (string)Parse(command, ["--help"]),
            UnknownOptionError { Token: "help" or "version" } asked => (string)Parse(command, [args[0], "--" + asked.Token]),
            HelpVerbRequestedError { Matched: true } help => (string)Parse(command, [help.Verb, "--help"]),
            HelpRequestedError or HelpVerbRequestedError or NoVerbSelectedError => Help(command, args, result),
            _ => throw ParserErrors.Explain(error, args, command),
        };
    }

    private static string Help(Command command, string[] args, ParserResult<object> result)
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
                help.AddPreOptionsLine($"Usage: {command.Name} {(isIndex ? command.Placeholder : args[0])} [OPTION...]");
                return help;
            },
            example => example,
            verbsIndex: isIndex,
            HelpWidth);
        return help.ToString().TrimEnd() + "\n";
    }

    /// <summary>A word or two, behind which stands one of several verbs.</summary>
    internal sealed record Command(string Name, (string Name, Type Options)[] Verbs)
    {
        /// <summary>What stands for the verb in its help.</summary>
        public string Placeholder => Verbs == Backends ? "DEVICE" : "COMMAND";
    }
}
