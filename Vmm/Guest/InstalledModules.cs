using System.Text;

namespace Vmm.Guest;

/// <summary>The modules of an installed kernel, by the files that depmod and the kernel's build leave in /lib/modules/RELEASE (modules.dep(5)).</summary>
internal sealed class InstalledModules : IModuleIndex
{
    private const int MaxFile = 64 << 20;       // some thirty times Debian's
    private const int MaxLine = 64 << 10;

    private readonly string _directory;
    private readonly byte[] _dependencies;
    private readonly Dictionary<string, Range> _lines = [];     // of _dependencies, by name
    private readonly HashSet<string> _builtIn = [];
    private ILookup<string, string>? _softDependencies;
    private ILookup<string, string>? _aliases;

    /// <summary>Reads the files in <paramref name="directory"/>. Those that are not there are taken to be empty.</summary>
    /// <exception cref="VmmException">One cannot be read.</exception>
    public InstalledModules(string directory)
    {
        _directory = directory;
        _dependencies = Read("modules.dep");
        foreach (Range line in Lines(_dependencies, (byte)'\n'))
        {
            ReadOnlySpan<byte> text = _dependencies.AsSpan(line);
            int colon = text.IndexOf((byte)':');
            if (colon > 0)
                _lines.TryAdd(NameOf(text[..colon]), line);
        }
        byte[] builtIn = Read("modules.builtin");
        foreach (Range line in Lines(builtIn, (byte)'\n'))
            _builtIn.Add(NameOf(builtIn.AsSpan(line)));
        if (builtIn.Length == 0)
            ReadInformation();
    }

    /// <inheritdoc/>
    public bool IsBuiltIn(string name) => _builtIn.Contains(name);

    /// <inheritdoc/>
    public bool IsBuiltIn(GuestDriver driver) => IsBuiltIn(driver.Module);

    /// <inheritdoc/>
    public string? Find(string name, bool isOptional = false)
    {
        if (!_lines.TryGetValue(name, out Range range))
            return null;
        ReadOnlySpan<byte> line = _dependencies.AsSpan(range);
        return ModulePath.In(_directory, Encoding.UTF8.GetString(line[..line.IndexOf((byte)':')]));
    }

    /// <inheritdoc/>
    public IEnumerable<string> DependenciesOf(string name)
    {
        if (!_lines.TryGetValue(name, out Range range))
            return [];
        string line = Encoding.UTF8.GetString(_dependencies.AsSpan(range));
        string[] paths = line[(line.IndexOf(':', StringComparison.Ordinal) + 1)..].Split(' ', StringSplitOptions.RemoveEmptyEntries);
        Array.Reverse(paths);       // depmod writes what loads first last
        return paths.Select(path => KernelModules.NameOf(path));
    }

    /// <inheritdoc/>
    public IEnumerable<string> SoftDependenciesOf(string name)
    {
        _softDependencies ??= Words("modules.softdep", "softdep").Where(words => words.Length > 2)
            .SelectMany(words => SoftDependency.Before(words.AsSpan(2)).Select(before => (Name: KernelModules.NameOf(words[1]), Before: before)))
            .ToLookup(pair => pair.Name, pair => pair.Before);
        return _softDependencies[name];
    }

    /// <inheritdoc/>
    public IEnumerable<string> Resolve(string alias)
    {
        string name = KernelModules.NameOf(alias);
        if (_lines.ContainsKey(name) || _builtIn.Contains(name))
            return [name];
        // Patterns are for what devices are called; nobody depends on such a name.
        _aliases ??= Words("modules.alias", "alias").Where(words => words.Length == 3 && !words[1].Contains('*', StringComparison.Ordinal))
            .ToLookup(words => KernelModules.NameOf(words[1]), words => KernelModules.NameOf(words[2]));
        return _aliases[name];
    }

    // For a kernel without modules.builtin: each built-in module says a few things about itself, "name.key=value".
    private void ReadInformation()
    {
        byte[] information = Read("modules.builtin.modinfo");
        foreach (Range range in Lines(information, 0))
        {
            ReadOnlySpan<byte> entry = information.AsSpan(range);
            int dot = entry.IndexOf((byte)'.');
            if (dot > 0)
                _builtIn.Add(NameOf(entry[..dot]));
        }
    }

    private IEnumerable<string[]> Words(string file, string first)
    {
        byte[] content = Read(file);
        foreach (Range range in Lines(content, (byte)'\n'))
        {
            string[] words = Encoding.UTF8.GetString(content.AsSpan(range)).Split(' ', StringSplitOptions.RemoveEmptyEntries);
            if (words.Length > 0 && words[0] == first)
                yield return words;
        }
    }

    private byte[] Read(string name) => HostFile.TryRead(Path.Combine(_directory, name), MaxFile) ?? [];

    private static List<Range> Lines(byte[] content, byte end)
    {
        List<Range> lines = [];
        for (int start = 0; start < content.Length;)
        {
            int length = content.AsSpan(start).IndexOf(end);
            if (length < 0)
                length = content.Length - start;
            if (length is > 0 and <= MaxLine)
                lines.Add(start..(start + length));
            start += length + 1;
        }
        return lines;
    }

    private static string NameOf(ReadOnlySpan<byte> path) => KernelModules.NameOf(Encoding.UTF8.GetString(path));
}
