using Vmm.Guest;
using Vmm.Vhost.Native;

namespace Vmm.Cli.Exec;

/// <summary>How far what a vmm.toml says may reach on this host. The user stands for a file that the command line names. One that is found in the working directory or above it may
/// have come with somebody else's files, as in a clone of a repository: it can give the guest what is in its own directory, and nothing else of the host's.</summary>
/// <param name="file">The file's absolute path.</param>
/// <param name="isNamed">Whether the command line names it.</param>
/// <remarks>A kernel, its modules and its command line are not among it: whatever they are, the guest is confined.</remarks>
internal sealed class DefaultsScope(string file, bool isNamed)
{
    private static readonly string[] s_pathKeys = ["path", "source", "socket", "daemon"];

    // They start a program of this host's, or get at one that runs.
    private static readonly string[] s_namedKeys = ["daemon", "sandbox", "socket", "fd", "server"];

    private string Directory => Path.GetDirectoryName(file)!;

    /// <summary>The absolute path of <paramref name="path"/>, which is relative to the file's directory.</summary>
    public string Absolute(string path) => Path.GetFullPath(path, Directory);

    /// <summary>A kernel: the release of one that is installed, or a path.</summary>
    public string Kernel(string kernel) =>
        !kernel.Contains('/', StringComparison.Ordinal) && (KernelSearch.IsInstalled(kernel) || !Path.Exists(Absolute(kernel))) ? kernel : Absolute(kernel);

    /// <summary>The absolute path of what the guest gets.</summary>
    /// <exception cref="UsageException">It is not for this file to give.</exception>
    public string Given(string key, string path)
    {
        string absolute = Absolute(path);
        RequireInside(key, absolute);
        return absolute;
    }

    /// <summary>A value of <paramref name="option"/>, <c>--bind</c> or <c>--bind-ro</c>.</summary>
    /// <exception cref="UsageException">It is not for this file to give, or is malformed.</exception>
    public string Bind(string key, string option, string text)
    {
        string value = Path.Combine(Directory, text);
        if (!isNamed)
            RequireInside(key, BindOption.Parse(option, value).Source);
        return value;
    }

    /// <summary>A value of <paramref name="option"/>, which describes a device: the paths in it are relative to the file, too.</summary>
    /// <exception cref="UsageException">It is not for this file to give, or is malformed.</exception>
    public string Device(string key, string option, string text) => KeyValueList.Map(option, text, (name, value) =>
    {
        if (s_namedKeys.Contains(name))
            RequireNamed($"{key}: {name}=");
        if (!s_pathKeys.Contains(name) || value.Length == 0)
            return null;
        return ExecOptionsReader.Quoted(option, Given(key, value));
    });

    /// <summary>Allows <paramref name="what"/> only to a file that the command line names.</summary>
    /// <exception cref="UsageException">It does not name this one.</exception>
    public void RequireNamed(string what)
    {
        if (!isNamed)
            throw Refuse(what);
    }

    // Who may write to the directory could put a link into the path afterwards. That is the user, and whoever he has given it to.
    private void RequireInside(string key, string path)
    {
        if (isNamed)
            return;
        string? real = RealPath.TryResolve(path);
        if (real is null)
            throw new UsageException($"{file}: {key}: {path} is not there, or you may not look for it");
        string? own = RealPath.TryResolve(Directory);
        if (own is null || !RealPath.IsIn(real, own))
            throw Refuse($"{key}: {path}, which is not in its directory,");
    }

    private UsageException Refuse(string what) =>
        new($"{file}: {what} is not for a file that was found and not named: say it on the command line, or name the file by --config {file}");
}
