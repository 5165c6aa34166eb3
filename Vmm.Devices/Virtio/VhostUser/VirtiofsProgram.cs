using Vmm.Vhost;

namespace Vmm.Devices.Virtio.VhostUser;

/// <summary>A virtio-fs daemon that is installed on this host: there are two programs of that name, with different options.</summary>
/// <param name="Path">The program.</param>
/// <param name="IsLegacy">Whether it is QEMU's, in C, which QEMU had up to version 7.2; if not, it is the one in Rust.</param>
internal sealed record VirtiofsProgram(string Path, bool IsLegacy)
{
    private static readonly VirtiofsProgram[] s_candidates =
    [
        new("/usr/libexec/virtiofsd", IsLegacy: false), new("/usr/lib/virtiofsd", IsLegacy: false), new("/usr/lib/qemu/virtiofsd", IsLegacy: true),
    ];

    /// <summary>What is started to share <paramref name="source"/>.</summary>
    /// <param name="name">The device, for messages.</param>
    /// <param name="source">The directory.</param>
    /// <exception cref="VhostException">The directory or the program is missing.</exception>
    public static DaemonProgram For(string name, FsSource source)
    {
        if (!Directory.Exists(source.Path))
            throw new VhostException($"{name}: {source.Path} is no directory: make it first, or give another");
        source = source with { Path = System.IO.Path.GetFullPath(source.Path) };   // the daemon's current directory is another once it is confined
        VirtiofsProgram program = Find(name);
        return new DaemonProgram(program.Path, program.Path, socket => program.Arguments(source, socket));
    }

    /// <summary>The first that is there.</summary>
    /// <param name="name">The device, for the message.</param>
    /// <exception cref="VhostException">None is.</exception>
    private static VirtiofsProgram Find(string name) => Array.Find(s_candidates, candidate => File.Exists(candidate.Path))
        ?? throw new VhostException($"{name}: there is no virtiofsd ({string.Join(", ", s_candidates.Select(candidate => candidate.Path))}): "
            + "install package virtiofsd, or qemu-system-common on Debian 12, or start another daemon and give its socket=PATH");

    /// <summary>Its arguments for <paramref name="source"/>, with a listening socket as descriptor <paramref name="socket"/>.</summary>
    public string[] Arguments(FsSource source, int socket) => IsLegacy
        ? [$"--fd={socket}", "-f", "-o", $"source={Escape(source.Path)}", "-o", $"sandbox={source.Sandbox}"]
        : [$"--fd={socket}", $"--shared-dir={source.Path}", $"--sandbox={source.Sandbox}"];

    // In an -o list a comma ends a value, unless a backslash stands before it.
    private static string Escape(string path) =>
        path.Replace("\\", "\\\\", StringComparison.Ordinal).Replace(",", "\\,", StringComparison.Ordinal);
}
