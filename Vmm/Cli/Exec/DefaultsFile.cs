using System.Globalization;
using System.Text;
using Tomlyn;
using Tomlyn.Parsing;
using Tomlyn.Syntax;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Cli.Exec;

/// <summary>A file vmm.toml: what is not said on the command line of <c>vmm exec</c>, and the variants of <c>--matrix</c>.</summary>
internal sealed class DefaultsFile
{
    private const string FileName = "vmm.toml";
    private const string Matrix = "matrix", Name = "name", Environment = "env";
    private const int MaxSize = 1 << 20;

    private readonly string _path;
    private readonly bool _isNamed;
    private static readonly string[] s_keys =
        ["kernel", "modules", "root", "cmdline", "cpus", "memory", "overlay", "timeout", "user", "workdir", "bind", "bind-ro", Environment, "net", "port", "disk", "fs"];

    private readonly Dictionary<string, DefaultsSetting> _settings = [];
    private readonly Dictionary<string, int> _lines = [];      // of the settings that were applied
    private readonly List<MatrixVariant> _variants = [];

    private DefaultsFile(string path, string text, bool isNamed)
    {
        (_path, _isNamed) = (path, isNamed);
        DocumentSyntax document = SyntaxParser.Parse(text, path);
        if (document.HasErrors)
        {
            DiagnosticMessage first = document.Diagnostics.First();
            throw Error(first.Span, first.Message);
        }
        ReadInto(_settings, document.KeyValues);
        foreach (TableSyntaxBase table in document.Tables)
            ReadTable(table);
    }

    /// <summary>The variants, in the order of the file.</summary>
    public IReadOnlyList<MatrixVariant> Variants => _variants;

    /// <summary>The file of the working directory or of the nearest directory above; null if there is none.</summary>
    /// <exception cref="UsageException">It cannot be understood; or somebody else may change it, who could then have any directory given to a guest.</exception>
    public static DefaultsFile? Find(string directory)
    {
        for (string? place = directory; place is not null; place = Path.GetDirectoryName(place))
        {
            if (TryOpen(place) is not { } found)
                continue;
            using RegularFile file = found;
            return Read(Path.Combine(place, FileName), file, isNamed: false);
        }
        return null;
    }

    /// <summary>The file at <paramref name="path"/>, which <c>--config</c> names: whosever it is, the user stands for it.</summary>
    /// <exception cref="UsageException">It is not there, or cannot be understood.</exception>
    public static DefaultsFile Open(string path)
    {
        var value = new OptionValue("--config", null, path);
        if (path.Length == 0)
            throw value.Refuse("is empty: give the path of a file such as vmm.toml");
        try
        {
            using RegularFile file = RegularFile.OpenRead(path);
            return Read(RealPath.Absolute(path), file, isNamed: true);
        }
        catch (ErrnoException e)
        {
            throw new UsageException($"--config: {e.Message}{(e.Errno == Errnos.Enoent ? ": give the path of a file such as vmm.toml" : "")}", e);
        }
        catch (InvalidDataException e)
        {
            throw value.Refuse($"{e.Message}, not a file: give the path of a file such as vmm.toml");
        }
    }

    /// <summary>The file, and the line in which it gives the option <paramref name="name"/>, as the beginning of a complaint.</summary>
    public string PlaceOf(string name) => _lines.TryGetValue(name, out int line) ? $"{_path}: line {line}" : _path;

    /// <summary>Reads a file from its text.</summary>
    /// <inheritdoc cref="Open"/>
    internal static DefaultsFile Parse(string path, string text, bool isNamed = true) => new(path, text, isNamed);

    /// <summary>The variant called <paramref name="name"/>.</summary>
    /// <exception cref="UsageException">There is none.</exception>
    public MatrixVariant Variant(string name) => _variants.Find(variant => variant.Name == name)
        ?? throw new UsageException($"--only: {_path} has no [[matrix]] called '{name}': there {(_variants.Count == 0 ? "is none" : $"are {string.Join(", ", _variants.Select(variant => variant.Name))}")}");

    /// <summary>Gives <paramref name="options"/> what they do not say themselves: what <paramref name="variant"/> says, and then what the file says for
    /// all. Of what can be given several times all counts.</summary>
    /// <returns>Where the guest gets less than the file says: a line for the user for each.</returns>
    /// <exception cref="UsageException">A value is of the wrong kind, or not for this file to give.</exception>
    public IReadOnlyList<string> ApplyTo(ExecOptions options, MatrixVariant? variant)
    {
        var scope = new DefaultsScope(_path, _isNamed, options);
        // The variant's own first: what is said counts before what comes later. Of all the root first: with --rw the guest may write to it, and so to what else is in it.
        foreach ((string key, DefaultsSetting setting) in (variant?.Settings.Concat(_settings) ?? _settings).OrderBy(setting => setting.Key == "root" ? 0 : 1))
        {
            _lines.TryAdd(key, setting.Line);
            try
            {
                Apply(options, scope, key, setting);
            }
            catch (UsageException e) when (WithoutPlace(e.Message, key) is string what)
            {
                throw new UsageException($"{_path}: line {setting.Line}: {what}", e);
            }
        }
        return scope.Notes;
    }

    // The file is opened once: what is looked at is what is read. Null if there is none, or none that may be looked for.
    private static RegularFile? TryOpen(string place)
    {
        string path = Path.Combine(place, FileName);
        if (FileKind.Identity(path) is null)
            return null;
        RegularFile? file = null;
        try
        {
            using FileDescriptor directory = FileTree.OpenDirectory(place);
            using HeldDescriptor held = directory.Hold();
            file = RegularFile.OpenRead(directory, FileName);
            if (!file.IsTrusted)
                throw new UsageException($"{path} belongs to another user, or others may write to it: make it yours alone (chmod go-w), name it by --config, or leave it out by --no-config");
            if (FileTree.GetStatus(held, out FileStatus status) < 0 || !FileOwner.IsTrusted(status, allowsSticky: true))
                throw new UsageException($"{path}: its directory belongs to another user, or others may write to it: make it yours alone (chmod go-w), name the file by --config, or leave it out by --no-config");
            (RegularFile result, file) = (file, null);
            return result;
        }
        catch (ErrnoException e)
        {
            throw new UsageException(e.Errno == Errnos.Eloop ? $"{path} is a symbolic link: name it by --config, or leave it out by --no-config" : $"{path}: {e.Message}", e);
        }
        catch (InvalidDataException e)
        {
            throw new UsageException($"{path} {e.Message}, not a file: rename it, or leave it out by --no-config", e);
        }
        finally
        {
            file?.Dispose();
        }
    }

    private static DefaultsFile Read(string path, RegularFile file, bool isNamed)
    {
        if (file.Length > MaxSize)
            throw new UsageException($"{path} has more than {MaxSize >> 20} MiB");
        try
        {
            byte[] content = new byte[file.Length];
            int count = file.Read(content, 0);
            return new DefaultsFile(path, Encoding.UTF8.GetString(content.AsSpan(0, count)).TrimStart('\uFEFF'), isNamed);
        }
        catch (ErrnoException e)
        {
            throw new UsageException($"{path}: {e.Message}", e);
        }
        catch (TomlException e)
        {
            // All else that is wrong is a diagnostic.
            throw new UsageException($"{path}: a value is nested too deeply: write a text, a number or a list of these", e);
        }
    }

    // A complaint about a value of this file, in the words of the command line or with the file's name; null if it is about something else.
    private string? WithoutPlace(string message, string key) =>
        message.StartsWith($"--{key}: ", StringComparison.Ordinal) ? message[2..]
        : message.StartsWith($"{_path}: ", StringComparison.Ordinal) ? message[$"{_path}: ".Length..]
        : null;

    private void Apply(ExecOptions options, DefaultsScope scope, string key, DefaultsSetting setting)
    {
        IReadOnlyList<string> values = setting.Values;
        switch (key)
        {
            case "kernel":
                options.Kernel ??= scope.Kernel(One());
                break;
            case "modules":
                options.Modules ??= scope.Modules(One());
                break;
            case "root":
                options.Root ??= scope.Given(key, One());
                break;
            case "cmdline":
                options.CommandLine ??= One();
                break;
            case "cpus":
                options.Cpus ??= scope.Harmless(key, CpusOption.Name, One());
                break;
            case "memory":
                options.Memory ??= scope.Harmless(key, MemoryOption.Name, One());
                break;
            case "overlay":
                options.Overlay ??= One();
                break;
            case "timeout":
                options.Timeout ??= One();
                break;
            case "user":
                options.User ??= One();
                break;
            case "workdir":
                options.WorkDir ??= One();
                break;
            case "bind":
                ILookup<bool, string> binds = values.Select(value => scope.Bind(key, value)).ToLookup(bind => bind.IsReadOnly, bind => bind.Value);
                options.Bind = Before(BindOption.Name, binds[false], options.Bind);
                options.BindReadOnly = Before(BindOption.ReadOnlyName, binds[true], options.BindReadOnly);
                break;
            case "bind-ro":
                options.BindReadOnly = Before(BindOption.ReadOnlyName, values.Select(value => scope.BindReadOnly(key, value)), options.BindReadOnly);
                break;
            case Environment:
                // The value of here, which may be a secret.
                if (values.FirstOrDefault(value => !value.Contains('=', StringComparison.Ordinal)) is string name)
                    scope.RequireNamed($"{key}: {name} without a value");
                options.Env = Before(EnvironmentOption.Name, values, options.Env);
                break;
            case "net":
                scope.RequireNamed(key);
                options.Net = Before(NetOption.Name, values.Select(value => scope.Device(key, NetOption.Name, value)), options.Net);
                break;
            case "port":
                scope.RequireNamed(key);
                options.Port = Before(ExecNetwork.PortOption, values, options.Port);
                break;
            case "disk":
                options.Disk = Before(DiskOption.Name, values.Select(value => scope.Device(key, DiskOption.Name, value)), options.Disk);
                break;
            case "fs":
                options.Fs = Before(FsOption.Name, values.Select(value => scope.Device(key, FsOption.Name, value)), options.Fs);
                break;
        }

        string One() => this.One(key, setting);
    }

    private string One(string key, DefaultsSetting setting) =>
        setting.Values is [string value] ? value : throw new UsageException($"{_path}: line {setting.Line}: {key} has {setting.Values.Count} values: write one");

    private static string? Before(string option, IEnumerable<string> values, string? given) =>
        RepeatableOptions.ToValue(option, [.. values, .. RepeatableOptions.Values(given)]);

    private void ReadTable(TableSyntaxBase table)
    {
        string name = NameOf(table.Name!);
        if (name == Matrix && table is TableArraySyntax)
        {
            Dictionary<string, DefaultsSetting> settings = [];
            ReadInto(settings, table.Items, Name);
            string called = settings.Remove(Name, out DefaultsSetting? given) ? One(Name, given)
                : settings.TryGetValue("kernel", out DefaultsSetting? kernel) ? One("kernel", kernel) : $"{_variants.Count + 1}";
            if (_variants.Exists(variant => variant.Name == called))
                throw Error(table.Span, $"there is a [[matrix]] called '{called}' already: give each a name");
            _variants.Add(new MatrixVariant(called, settings));
        }
        else if (name == Environment && table is TableSyntax)
        {
            ReadVariables(_settings, table.Items.Select(item => (item.Key!, item.Value!)), table.Span);
        }
        else
        {
            throw Error(table.Span, $"'{name}' is no table of this file: there are [[matrix]] and [env]");
        }
    }

    private void ReadInto(Dictionary<string, DefaultsSetting> settings, IEnumerable<KeyValueSyntax> items, string? further = null)
    {
        foreach (KeyValueSyntax item in items)
        {
            string key = NameOf(item.Key!);
            if (!s_keys.Contains(key) && key != further)
                throw Error(item.Key!.Span, $"unknown key '{key}': there are {string.Join(", ", s_keys)}, and [[{Matrix}]] with these and {Name}");
            if (key == Environment && item.Value is InlineTableSyntax variables)
                ReadVariables(settings, variables.Items.Select(variable => (variable.KeyValue!.Key!, variable.KeyValue.Value!)), item.Key!.Span);
            else
                settings[key] = new DefaultsSetting(item.Value is ArraySyntax array ? [.. array.Items.Select(element => TextOf(element.Value!, key))] : [TextOf(item.Value!, key)], LineOf(item.Key!.Span));
        }
    }

    private void ReadVariables(Dictionary<string, DefaultsSetting> settings, IEnumerable<(KeySyntax Key, ValueSyntax Value)> variables, SourceSpan place) =>
        settings[Environment] = new DefaultsSetting([.. variables.Select(variable => $"{NameOf(variable.Key)}={TextOf(variable.Value, Environment)}")], LineOf(place));

    private string NameOf(KeySyntax key)
    {
        if (key.DotKeys.ChildrenCount > 0)
            throw Error(key.Span, "a key with dots is none of this file");
        return key.Key switch
        {
            BareKeySyntax bare => bare.Key?.Text ?? "",
            StringValueSyntax text => Checked(text),
            _ => throw Error(key.Span, "is no key"),
        };
    }

    private string TextOf(ValueSyntax value, string key) => value switch
    {
        StringValueSyntax text => Checked(text, isVariable: key == Environment),
        IntegerValueSyntax number => number.Value.ToString(CultureInfo.InvariantCulture),
        _ => throw Error(value.Span, "a value is a text in quotes, a whole number, or a list of these"),
    };

    // A terminal obeys control characters, no path can have a null, and 0x1F stands between values that are put together. A variable is for the command alone: it can have several lines.
    private string Checked(StringValueSyntax text, bool isVariable = false)
    {
        foreach (char character in text.Value ?? "")
        {
            if (char.IsControl(character) && !(isVariable && character is '\t' or '\n'))
                throw Error(text.Span, $"a text must not have control characters in it, such as U+{(int)character:X4}");
        }
        return text.Value ?? "";
    }

    private static int LineOf(SourceSpan place) => place.Start.Line + 1;

    private UsageException Error(SourceSpan place, string what) => new($"{_path}: line {LineOf(place)}: {what}");
}

/// <summary>What a file of defaults says of one option.</summary>
/// <param name="Values">One, or several where the option can be given several times.</param>
/// <param name="Line">Where, from 1 on.</param>
internal sealed record DefaultsSetting(IReadOnlyList<string> Values, int Line);

/// <summary>One of the guests of <c>--matrix</c>.</summary>
/// <param name="Name">What it is called.</param>
/// <param name="Settings">What is its own.</param>
internal sealed record MatrixVariant(string Name, IReadOnlyDictionary<string, DefaultsSetting> Settings);
