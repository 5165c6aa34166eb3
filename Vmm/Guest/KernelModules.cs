using Vmm.Vhost.Native;

namespace Vmm.Guest;

/// <summary>The modules of a kernel: which of them a guest needs, in the order in which they load.</summary>
/// <remarks>An init of one program has no modprobe that the kernel could ask for what it wants by alias, so soft dependencies are loaded too.</remarks>
internal sealed class KernelModules
{
    private const int MaxDepth = 64;
    private const int MaxModules = 1024;
    private const string FastHash = "sha256_ssse3";     // by the processor's vectors, or by its own instructions for this hash

    private readonly IModuleIndex? _index;
    private readonly string? _confines;

    /// <summary>Reads what there is of the modules of <paramref name="kernel"/>. One without any is taken to have built in what it needs.</summary>
    /// <exception cref="VmmException">A file cannot be read.</exception>
    public KernelModules(GuestKernel kernel)
        : this(kernel.Modules is not string directory ? null : kernel.IsBuildTree ? new BuildTreeModules(directory, kernel.AreModulesConfined) : new InstalledModules(directory)) =>
        _confines = kernel.AreModulesConfined ? kernel.Modules : null;

    /// <summary>Uses <paramref name="index"/>; null: nothing is known, and everything is taken to be built in.</summary>
    public KernelModules(IModuleIndex? index) => _index = index;

    /// <summary>Whether the kernel has <paramref name="driver"/>, built in or as a module; also where nothing is known.</summary>
    public bool Has(GuestDriver driver) => _index is null || _index.IsBuiltIn(driver) || _index.Find(driver.Module) is not null;

    /// <summary>What it takes to have <paramref name="wanted"/>.</summary>
    /// <exception cref="VmmException">What the modules say of themselves is nonsense.</exception>
    public ModulePlan Plan(IEnumerable<GuestDriver> wanted)
    {
        if (_index is null)
            return new ModulePlan([], []) { Assumed = [.. wanted.Where(driver => !driver.IsOptional)] };
        var walk = new Walk(_index, _confines);
        List<GuestDriver> missing = [];
        foreach (GuestDriver driver in wanted)
        {
            if (!_index.IsBuiltIn(driver) && !walk.TryAdd(driver.Module, driver.IsOptional, 0) && !driver.IsOptional)
                missing.Add(driver);
        }
        return new ModulePlan(WithFastHash(walk.Files, _index), missing);
    }

    // A kernel that checks signatures hashes each module twice. With this one loaded first that takes a fraction of the time for all others.
    private List<ModuleFile> WithFastHash(List<ModuleFile> files, IModuleIndex index)
    {
        if (files.Count < 2 || index.Find(FastHash, isOptional: true) is null || !files[0].IsSigned)
            return files;
        var walk = new Walk(index, _confines);
        walk.TryAdd(FastHash, isOptional: true, 0);
        if (!walk.Files.TrueForAll(file => FileKind.IsFile(file.Path)))
            return files;   // a part of a kernel's modules, with the list of all
        return [.. walk.Files, .. files.Where(file => !walk.Files.Exists(first => first.Name == file.Name))];
    }

    /// <summary>A module's name as the kernel has it: the part of a path before .ko, with underscores.</summary>
    /// <param name="path">The path of a module's file, or a bare name.</param>
    public static string NameOf(ReadOnlySpan<char> path)
    {
        ReadOnlySpan<char> name = path[(path.LastIndexOf('/') + 1)..];
        int end = name.IndexOf('.');
        return (end < 0 ? name : name[..end]).ToString().Replace('-', '_');
    }

    private sealed class Walk(IModuleIndex index, string? confines)
    {
        private const int BeingAdded = -1;

        private readonly Dictionary<string, int> _places = [];      // in Files

        public List<ModuleFile> Files { get; } = [];

        // False: there is no such module. What it depends on comes first; a circle ends where it began.
        public bool TryAdd(string name, bool isOptional, int depth)
        {
            if (index.Find(name, isOptional) is not string path)
                return false;
            if (_places.TryGetValue(name, out int place))
            {
                if (place != BeingAdded && Files[place].IsOptional && !isOptional)
                    Require(name, place, depth);
                return true;
            }
            _places[name] = BeingAdded;
            if (depth == MaxDepth)
                throw new VmmException($"module {path} stands behind {MaxDepth} that depend on each other: run depmod");
            foreach (string alias in index.SoftDependenciesOf(name))
            {
                foreach (string answer in index.Resolve(alias))
                    TryAdd(answer, isOptional: true, depth + 1);
            }
            foreach (string other in index.DependenciesOf(name))
            {
                if (!TryAdd(other, isOptional, depth + 1) && !index.IsBuiltIn(other) && !isOptional)
                    throw new VmmException($"module {path} needs {other}, which is not there: run depmod, or install the kernel's modules again");
            }
            if (Files.Count == MaxModules)
                throw new VmmException($"module {path} is one of more than {MaxModules} that a guest would need: run depmod");
            _places[name] = Files.Count;
            Files.Add(new ModuleFile(name, path, isOptional, confines));
            return true;
        }

        // What was only somebody's wish is needed by another: then all behind it are, too.
        private void Require(string name, int place, int depth)
        {
            Files[place] = Files[place] with { IsOptional = false };
            foreach (string other in index.DependenciesOf(name))
                TryAdd(other, isOptional: false, depth + 1);
        }
    }
}
