namespace Vmm.Cli.Exec;

/// <summary>Knows which options of <c>vmm exec</c> its command line has and which come from the file of defaults, so that a complaint about one of those
/// names the file.</summary>
internal sealed class DefaultsOrigin
{
    private static readonly (string Name, Func<ExecOptions, string?> Value)[] s_options =
    [
        ("kernel", options => options.Kernel), ("modules", options => options.Modules), ("root", options => options.Root), ("cmdline", options => options.CommandLine),
        ("cpus", options => options.Cpus), ("memory", options => options.Memory), ("overlay", options => options.Overlay), ("timeout", options => options.Timeout),
        ("user", options => options.User), ("workdir", options => options.WorkDir), ("bind", options => options.Bind), ("bind-ro", options => options.BindReadOnly),
        ("env", options => options.Env), ("net", options => options.Net), ("port", options => options.Port), ("disk", options => options.Disk), ("fs", options => options.Fs),
    ];

    private readonly HashSet<string> _given;

    /// <summary>Looks at what the command line gave.</summary>
    public DefaultsOrigin(ExecOptions given) => _given = [.. s_options.Where(option => option.Value(given) is not null).Select(option => option.Name)];

    /// <summary>The file; null if there is none.</summary>
    public DefaultsFile? File { get; set; }

    /// <summary>The complaint in the words of the file, if it is about an option that the file alone has given.</summary>
    /// <param name="message">The complaint, which begins with its option, or ends with the advice to check it.</param>
    /// <param name="options">The options as they are now.</param>
    /// <returns>Null if it is about something else.</returns>
    public string? Explain(string message, ExecOptions options)
    {
        foreach ((string name, Func<ExecOptions, string?> value) in s_options)
        {
            if (File is null || _given.Contains(name) || value(options) is null)
                continue;
            if (message.StartsWith($"--{name}: ", StringComparison.Ordinal))
                return $"{File.PlaceOf(name)}: {message[2..]}";
            if (message.EndsWith($": check --{name}", StringComparison.Ordinal))
                return $"{File.PlaceOf(name)}: {message[..message.LastIndexOf(": check", StringComparison.Ordinal)]}";
        }
        return null;
    }
}
