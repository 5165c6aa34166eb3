namespace Vmm.Cli.Backend;

/// <summary>The command line of <c>vmm backend fs</c> before it is read: what virtiofsd's users write otherwise becomes the options of <see cref="FsBackendOptions"/>. These are the
/// options of QEMU's virtiofsd (<c>-o source=DIR,xattr</c>, <c>-d</c>, <c>-f</c>), older names, and switches with a word (<c>--posix-acl=never</c>). Of what is given more than once
/// the last counts.</summary>
/// <remarks>The options are those of virtiofsd 1.13 (src/main.rs) and of QEMU 7.2 (tools/virtiofsd/helper.c and passthrough_ll.c).</remarks>
internal sealed class FsCommandLine
{
    private const string Hint = "(see vmm backend fs --help)";

    // Switches of QEMU's virtiofsd, each also with no_ before it.
    private static readonly string[] s_oldSwitches =
        ["xattr", "posix_acl", "security_label", "killpriv_v2", "writeback", "allow_direct_io", "readdirplus", "announce_submounts", "posix_lock", "flock"];

    // Switches that newer ones of virtiofsd take a word for.
    private static readonly string[] s_switchesWithWord = ["--xattr", "--posix-acl", "--security-label", "--killpriv-v2", "--announce-submounts"];

    private static readonly string[] s_repeatable =
        [FsBackendOptions.TranslateUidName, FsBackendOptions.TranslateGidName, FsBackendOptions.UidMapName, FsBackendOptions.GidMapName];

    private readonly string[] _switches;

    // Each with the name under which a later one replaces it; empty for what nothing replaces.
    private readonly List<(string Slot, string[] Arguments)> _options = [];

    private FsCommandLine(string[] switches) => _switches = switches;

    /// <summary>The same command line in the options of <see cref="FsBackendOptions"/>, none of them twice but for those that may be given more than once.</summary>
    /// <param name="args">The verb and its options.</param>
    /// <param name="switches">The options without a value, with their dashes.</param>
    /// <exception cref="UsageException">An option of QEMU's virtiofsd is wrong.</exception>
    public static string[] Expand(string[] args, string[] switches)
    {
        var line = new FsCommandLine(switches);
        for (int i = 1; i < args.Length; i++)
            i = line.Read(args, i);
        return [args[0], .. line._options.SelectMany(option => option.Arguments)];
    }

    // Takes the argument at a place, and the next one where that is its value; returns the place of the last.
    private int Read(string[] args, int at)
    {
        string argument = args[at];
        switch (argument)
        {
            case "-f":      // in the foreground, where it is anyway
                return at;
            case "-d" or "--debug":
                SetValue("--log-level", "debug");
                return at;
            case "--daemonize":
                throw new UsageException("--daemonize: is not possible: it runs in the foreground; leave it out, and have a service manager start it, or a shell with & behind it");
            case "-V":
                Set("", "--version");
                return at;
            case "-o":
                if (at + 1 == args.Length)
                    throw new UsageException($"-o: its value is missing {Hint}");
                ReadOld(args[at + 1]);
                return at + 1;
        }
        if (argument.StartsWith("-o", StringComparison.Ordinal))
        {
            ReadOld(argument[2..]);
            return at;
        }
        if (!argument.StartsWith("--", StringComparison.Ordinal) || argument == "--")
        {
            Set("", argument);
            return at;
        }
        int equals = argument.IndexOf('=');
        string name = equals < 0 ? argument : argument[..equals];
        if (equals < 0 && _switches.Contains(name))
        {
            foreach (string each in name is FsBackendOptions.NoHostLocksName ? FsBackendOptions.NoLocksNames : [name])
                SetSwitch(each["--".Length..]);
        }
        else if (equals >= 0 && s_switchesWithWord.Contains(name))
            SetSwitch(name, argument[(equals + 1)..]);
        else if (equals >= 0 && _switches.Contains(name))
            Set(name, argument);        // Verbs refuses it
        else if (equals >= 0)
            SetValue(name, argument[(equals + 1)..]);
        else if (at + 1 < args.Length)
            SetValue(name, args[++at]);
        else
            Set("", name);              // its value is missing
        return at;
    }

    // The value of -o. A comma that belongs to a value has a backslash before it, as in every FUSE daemon.
    private void ReadOld(string list)
    {
        const char comma = '\x1f';
        foreach (string part in list.Replace("\\,", comma.ToString(), StringComparison.Ordinal).Split(','))
        {
            string option = part.Replace(comma, ',');
            int equals = option.IndexOf('=');
            if (equals < 0)
                ReadOldSwitch(option);
            else
                ReadOldValue(option[..equals], option[(equals + 1)..], option);
        }
    }

    private void ReadOldSwitch(string option)
    {
        bool isOn = !option.StartsWith("no_", StringComparison.Ordinal);
        string word = isOn ? option : option["no_".Length..];
        if (option == "allow_root")
            return;                     // of FUSE mounts of the host's own: virtiofsd makes none
        else if (option == "debug")
            SetValue("--log-level", "debug");
        else if (s_oldSwitches.Contains(word))
            SetSwitch((isOn ? "" : "no-") + word.Replace('_', '-'));
        else
            throw new UsageException($"-o: '{option}' is no option {Hint}");
    }

    private void ReadOldValue(string key, string value, string option)
    {
        switch (key)
        {
            case "source":
                SetValue("--shared-dir", value);
                break;
            case "log_level" or "loglevel":
                SetValue("--log-level", value == "err" ? "error" : value);
                break;
            case "cache" or "sandbox" or "xattrmap" or "modcaps" or "timeout":
                SetValue($"--{key}", value);
                break;
            case "max_idle_threads":    // there are as many threads as --thread-pool-size says
                break;
            default:
                throw new UsageException($"-o: '{option}' is no option {Hint}");
        }
    }

    private void SetSwitch(string name, string word)
    {
        var value = new OptionValue(name, null, word);
        bool? isOn = name == "--posix-acl"
            ? Choice.Parse<bool?>(value, ("auto", null), ("always", true), ("never", false))
            : Choice.Parse<bool?>(value, ("always", true), ("never", false));
        if (isOn is null)
            _options.RemoveAll(option => option.Slot == name);      // what is so where nothing is said
        else
            SetSwitch((isOn.Value ? "" : "no-") + name["--".Length..]);
    }

    // A switch and its opposite are one option. The one that is so anyway may have no name here.
    private void SetSwitch(string name)
    {
        string on = name.StartsWith("no-", StringComparison.Ordinal) ? name["no-".Length..] : name;
        string[] arguments = _switches.Contains($"--{name}") ? [$"--{name}"] : [];
        Set($"--{on}", arguments);
    }

    private void SetValue(string name, string value)
    {
        if (name == "--socket")
            name = "--socket-path";
        if (name == "--cache" && value == "none")
            value = "never";
        Set(s_repeatable.Contains(name) ? "" : name, name, value);
    }

    private void Set(string slot, params string[] arguments)
    {
        if (slot.Length > 0)
            _options.RemoveAll(option => option.Slot == slot);
        _options.Add((slot, arguments));
    }
}
