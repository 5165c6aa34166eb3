using System.Text;
using Vmm.Vhost.Native;

namespace Vmm.Guest;

/// <summary>The modules in a tree in which a kernel was built. They lie beside their sources, modules.order lists them, and what they depend on stands in
/// each of them: nobody has run depmod.</summary>
internal sealed class BuildTreeModules : IModuleIndex
{
    private const int MaxFile = 16 << 20;

    private readonly string _tree;
    private readonly bool _isConfined;
    private readonly Dictionary<string, string> _paths = [];
    private readonly HashSet<string> _builtIn = [];
    private readonly HashSet<string> _symbols = [];     // of the configuration, with the value y
    private readonly Dictionary<string, ModuleInformation> _information = [];

    /// <summary>Reads the lists in <paramref name="tree"/>. Those that are not there are taken to be empty: a kernel may have no modules.</summary>
    /// <param name="tree">The tree.</param>
    /// <param name="isConfined">Whether only files in it are modules, and no links.</param>
    /// <exception cref="VmmException">One cannot be read.</exception>
    public BuildTreeModules(string tree, bool isConfined = false)
    {
        (_tree, _isConfined) = (tree, isConfined);
        foreach (string line in ReadLines("modules.order"))
        {
            // kernel/fs/fuse/fuse.ko before Linux 5.19, fs/fuse/fuse.o since 6.2.
            string path = line.StartsWith("kernel/", StringComparison.Ordinal) && !FileKind.IsFile(Path.Combine(tree, line)) ? line["kernel/".Length..] : line;
            _paths.TryAdd(KernelModules.NameOf(path), Path.ChangeExtension(path, ".ko"));
        }
        foreach (string line in ReadLines("modules.builtin"))
            _builtIn.Add(KernelModules.NameOf(line));
        if (_builtIn.Count == 0)
            ReadConfiguration();
    }

    /// <inheritdoc/>
    public bool IsBuiltIn(string name) => _builtIn.Contains(name);

    /// <inheritdoc/>
    public bool IsBuiltIn(GuestDriver driver) => IsBuiltIn(driver.Module) || _symbols.Contains(driver.Symbol);

    /// <inheritdoc/>
    public string? Find(string name, bool isOptional = false)
    {
        if (!_paths.TryGetValue(name, out string? path))
            return null;
        string full = ModulePath.In(_tree, path);
        if (FileKind.IsFile(full))
            return full;
        return isOptional ? null : throw new VmmException($"module {full} is listed in modules.order but not built: run make modules");
    }

    /// <inheritdoc/>
    public IEnumerable<string> DependenciesOf(string name) => Values(name, "depends")
        .SelectMany(value => value.Split(',', StringSplitOptions.RemoveEmptyEntries)).Select(value => KernelModules.NameOf(value));

    /// <inheritdoc/>
    public IEnumerable<string> SoftDependenciesOf(string name) =>
        Values(name, "softdep").SelectMany(value => SoftDependency.Before(value.Split(' ', StringSplitOptions.RemoveEmptyEntries)));

    /// <summary>Aliases stand in the modules, too many to look into: those that are asked for here are algorithms, whose plain implementation is called
    /// <c>NAME_generic</c>.</summary>
    /// <inheritdoc/>
    public IEnumerable<string> Resolve(string alias)
    {
        string name = KernelModules.NameOf(alias);
        string plain = name.StartsWith("crypto_", StringComparison.Ordinal) ? name["crypto_".Length..] : name;
        return new[] { name, plain, plain + "_generic" }.Where(_paths.ContainsKey).Take(1);
    }

    // For a tree without modules.builtin, as one in which only the kernel was built.
    private void ReadConfiguration()
    {
        const string builtIn = "=y";
        foreach (string line in ReadLines("include/config/auto.conf"))
        {
            if (line.EndsWith(builtIn, StringComparison.Ordinal))
                _symbols.Add(line[..^builtIn.Length]);
        }
    }

    private List<string> Values(string name, string key)
    {
        if (Find(name) is not string path)
            return [];
        if (!_information.TryGetValue(name, out ModuleInformation? information))
            _information[name] = information = new ModuleInformation(new ModuleFile(name, path, IsOptional: false, _isConfined ? _tree : null).Read());
        return information.Values(key);
    }

    private string[] ReadLines(string file) =>
        Encoding.UTF8.GetString(HostFile.TryRead(Path.Combine(_tree, file), MaxFile) ?? []).Split('\n', StringSplitOptions.RemoveEmptyEntries);
}
