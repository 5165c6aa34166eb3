using System.Globalization;
using CommandLine;
using Vmm.Vhost;
using Vmm.Vhost.Native;

namespace Vmm.Cli.Backend;

/// <summary>The options that every device of <c>vmm backend</c> has (vhost-user.rst, "Backend program conventions"), as the user wrote them.</summary>
internal abstract class BackendOptions : IVerbOptions
{
    [Option("socket-path", MetaValue = "PATH", HelpText = "The Unix socket: listened on, one front-end at a time.")]
    public string? SocketPath { get; set; }

    [Option("fd", MetaValue = "N", HelpText = "Instead of a path: an inherited socket, connected or listening.")]
    public string? Fd { get; set; }

    [Option("client", HelpText = "Connect to --socket-path, where a front-end listens, again and again until it is there.")]
    public bool Client { get; set; }

    [Option("socket-group", MetaValue = "GROUP", HelpText = "The group, by its name or number, whose members may connect to --socket-path, too (default: its owner alone).")]
    public string? SocketGroup { get; set; }

    [Option("once", HelpText = "End when the first front-end leaves, with status 0.")]
    public bool Once { get; set; }

    [Option("sandbox", MetaValue = "on|off", HelpText = "Confine the process before the first message: no new privileges, no files (Landlock), "
        + "and no system calls but those that the device needs (seccomp); no programs, files or networks are left to a guest that "
        + "breaks into it (default: on). fs takes namespace and chroot for on, too, and none for off.")]
    public string? Sandbox { get; set; }

    [Option("print-capabilities", HelpText = "Print what the device can do as JSON, and do nothing else.")]
    public bool PrintCapabilities { get; set; }

    [Option("log-level", MetaValue = "LEVEL", HelpText = "What is logged to standard error: off, error, warn, info, debug or trace "
        + "(default: warn).")]
    public string? LogLevel { get; set; }

    [Value(0, Hidden = true)]
    public IEnumerable<string> Rest { get; set; } = [];

    /// <summary>Whether the process is confined.</summary>
    /// <exception cref="UsageException">The option is wrong.</exception>
    public virtual bool ReadSandbox() => Choice.ParseSwitch(new OptionValue("--sandbox", null, Sandbox ?? "on"));

    /// <summary>Whether a process that is confined gives up system calls, too.</summary>
    /// <exception cref="UsageException">The option is wrong.</exception>
    public virtual bool ReadSystemCalls() => true;

    /// <summary>The number of the group whose members may connect to the socket; null for its owner alone.</summary>
    /// <exception cref="UsageException">The option is wrong.</exception>
    public uint? ReadSocketGroup()
    {
        if (SocketGroup is null)
            return null;
        if (Fd is not null || Client)
            throw new UsageException($"--socket-group: cannot stand beside {(Client ? "--client" : "--fd")}: the socket is another's");
        return GroupDatabase.Find(SocketGroup) ?? (uint.TryParse(SocketGroup, NumberStyles.None, CultureInfo.InvariantCulture, out uint number) && number != uint.MaxValue ? number
            : throw new OptionValue("--socket-group", null, SocketGroup).Refuse("is no group of this host"));
    }

    /// <summary>The host's log, if that is where lines go; null for standard error.</summary>
    public virtual SystemLog? OpenLog() => null;

    /// <summary>Makes sense of the device's own options.</summary>
    /// <returns>What opens the device.</returns>
    /// <exception cref="UsageException">One of them is wrong or missing.</exception>
    public abstract Func<ServedDevice> Read();

    /// <summary>Names the option where what it gives cannot be opened.</summary>
    /// <param name="option">The option.</param>
    /// <param name="open">Opens the device.</param>
    protected static Func<ServedDevice> Opened(string option, Func<ServedDevice> open) => () =>
    {
        try
        {
            return open();
        }
        catch (Exception e) when (e is ErrnoException or VhostException)
        {
            int? errno = (e as ErrnoException ?? e.InnerException as ErrnoException)?.Errno;
            string? advice = errno switch
            {
                _ when !e.Message.EndsWith($"(errno {errno})", StringComparison.Ordinal) => null,
                Errnos.Enoent => "nothing is there, or its directory is missing: make it first, or give another",
                Errnos.Econnrefused => "nobody listens there: start the program that listens first, or give another",
                Errnos.Eacces or Errnos.Eperm => "this user may not open it: change its owner or its mode, or give another",
                _ => null,
            };
            string subject = e.Message.StartsWith($"{option}: ", StringComparison.Ordinal) ? "" : $"{option}: ";
            throw new VmmException($"{subject}{e.Message}{(advice is null ? "" : $": {advice}")}", e);
        }
    };

    private string DeviceName => Array.Find(Verbs.Backends, verb => verb.Options == GetType()).Name;

    /// <summary>The path that an option names.</summary>
    /// <exception cref="UsageException">It is missing or empty.</exception>
    protected string RequirePath(string option, string? value) => value switch
    {
        null => throw new UsageException($"{option} is missing (see vmm backend {DeviceName} --help)"),
        "" => throw new OptionValue(option, null, value).Refuse("is not a path"),
        _ => value,
    };
}
