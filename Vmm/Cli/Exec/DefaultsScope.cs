using Vmm.Guest;
using Vmm.Vhost.Native;

namespace Vmm.Cli.Exec;

/// <summary>How far what a vmm.toml says may reach on this host. The user stands for a file that the command line names. One that is found in the working directory or above it may
/// have come with somebody else's files, as in a clone of a repository: it can give the guest for reading what is in its own directory, and nothing else of the host's.</summary>
/// <param name="file">The file's absolute path.</param>
/// <param name="isNamed">Whether the command line names it.</param>
/// <param name="options">What the command line says, and then also what the file says.</param>
/// <remarks>A kernel, its modules and its command line are not among it: whatever they are, the guest is confined.</remarks>
internal sealed class DefaultsScope(string file, bool isNamed, ExecOptions options)
{
    private const string ReadOnly = "readonly", Privileged = "privileged";

    private static readonly string[] s_pathKeys = ["path", "source", "socket", "daemon"];

    // What a file that was found can say. Other keys start a program, get at one that runs, take what the host has little of, or show the guest more of the host's kernel.
    private static readonly Dictionary<string, string[]> s_harmless = new()
    {
        ["cpus"] = ["boot", "profile"],
        ["memory"] = ["size"],
        ["disk"] = ["path", ReadOnly, "direct", "discard", "logical_block_size", "serial", "queues", "queue_size"],
        ["fs"] = ["tag", "source", ReadOnly, "cache", "xattr", Privileged, "queues", "queue_size"],
    };

    private readonly List<string> _notes = [];

    /// <summary>Where the guest gets less than the file says: a line for the user for each.</summary>
    public IReadOnlyList<string> Notes => _notes;

    private string Directory => Path.GetDirectoryName(file)!;

    /// <summary>A kernel: the release of one that is installed, or a path.</summary>
    public string Kernel(string kernel)
    {
        // A release has no slash in it.
        if (!kernel.Contains('/', StringComparison.Ordinal) && (KernelSearch.IsInstalled(kernel) || !FileKind.IsFile(Absolute(kernel)) && !FileKind.IsDirectory(Absolute(kernel))))
            return kernel;
        // The modules beside it are those of whoever has chosen it, unless somebody has chosen others.
        options.AreModulesFound |= !isNamed && options.Modules is null;
        return Absolute(kernel);
    }

    /// <summary>The directory of the kernel's modules.</summary>
    public string Modules(string path)
    {
        options.AreModulesFound = !isNamed;
        return Absolute(path);
    }

    /// <summary>The absolute path of what the guest gets.</summary>
    /// <exception cref="UsageException">It is not for this file to give.</exception>
    public string Given(string key, string path)
    {
        string absolute = Absolute(path);
        RequireInside(key, absolute);
        return absolute;
    }

    /// <summary>A value of <c>--bind</c>, or of <c>--bind-ro</c> where the guest may only read the directory because the file was found.</summary>
    /// <exception cref="UsageException">It is not for this file to give, or is malformed.</exception>
    public (string Value, bool IsReadOnly) Bind(string key, string text)
    {
        (string value, string source) = BindOf(key, BindOption.Name, text);
        return (value, MayOnlyRead(key, BindOption.Name, source));
    }

    /// <summary>A value of <c>--bind-ro</c>.</summary>
    /// <exception cref="UsageException">It is not for this file to give, or is malformed.</exception>
    public string BindReadOnly(string key, string text) => BindOf(key, BindOption.ReadOnlyName, text).Value;

    /// <summary>A value of <paramref name="option"/> that gives nothing of the host's but processors or memory.</summary>
    /// <exception cref="UsageException">It is not for this file to give, or is malformed.</exception>
    public string Harmless(string key, string option, string text)
    {
        KeyValueList.Map(option, text, (name, _) =>
        {
            RequireHarmless(key, name);
            return null;
        });
        return text;
    }

    /// <summary>A value of <paramref name="option"/>, which describes a device: the paths in it are relative to the file, too.</summary>
    /// <exception cref="UsageException">It is not for this file to give, or is malformed.</exception>
    public string Device(string key, string option, string text)
    {
        string? place = null, readOnly = null;
        string device = KeyValueList.Map(option, text, (name, value) =>
        {
            RequireHarmless(key, name);
            if (name == Privileged && value is not ("off" or "false"))
            {
                throw new UsageException(
                    $"{file}: {key}: {Privileged}={value} is for the command line: say it there, or --allow-setuid, where the guest may make set-user-id programs and device nodes");
            }
            if (name == ReadOnly)
                readOnly = value;
            if (!s_pathKeys.Contains(name) || value.Length == 0)
                return null;
            place = Given(key, value);
            return ExecOptionsReader.Quoted(option, place);
        });
        if (place is null || readOnly is "on" or "true" || isNamed)
            return device;
        if (readOnly is null)
            return MayOnlyRead(key, option, place) ? $"{device},{ReadOnly}=on" : device;
        throw Refuse($"{key}: {ReadOnly}={readOnly}");
    }

    /// <summary>Allows <paramref name="what"/> only to a file that the command line names.</summary>
    /// <exception cref="UsageException">It does not name this one.</exception>
    public void RequireNamed(string what)
    {
        if (!isNamed)
            throw Refuse(what);
    }

    private string Absolute(string path) => Path.GetFullPath(path, Directory);

    private (string Value, string Source) BindOf(string key, string option, string text)
    {
        string value = Path.Combine(Directory, text);
        if (isNamed)
            return (value, "");
        string source = BindOption.Parse(option, value).Source;
        RequireInside(key, source);
        return (value, source);
    }

    private void RequireHarmless(string key, string name)
    {
        if (!isNamed && !s_harmless[key].Contains(name))
            throw Refuse($"{key}: {name}=");
    }

    // A directory has more in it than who wrote the file has put there: what is in .git is executed on this host, and so is what a Makefile says.
    private bool MayOnlyRead(string key, string option, string path)
    {
        if (isNamed || IsGivenForWriting(path))
            return false;
        _notes.Add($"{file}: {key}: the guest may only read {path}, since --config does not name this file: for writing say {option} on the command line, or add --config {file}");
        return true;
    }

    // By the command line, for what the file itself gives is for reading.
    private bool IsGivenForWriting(string path) => ReadOnlyShares.Covering(ExecOptionsReader.Shares(options).Writable, path) is not null;

    // Who may write to the directory could put a link into the path afterwards. That is the user, and whoever he has given it to.
    private void RequireInside(string key, string path)
    {
        if (isNamed)
            return;
        string? real = RealPath.TryResolve(path);
        if (real is null)
            throw new UsageException($"{file}: {key}: {path} is not there, or you may not look for it: make it, or change the path");
        string? own = RealPath.TryResolve(Directory);
        if (own is null || !RealPath.IsIn(real, own))
            throw Refuse($"{key}: {path} is outside of the file's directory, which");
    }

    private UsageException Refuse(string what) =>
        new($"{file}: {what} is allowed only in a file that --config names: say it on the command line, or add --config {file}");
}
