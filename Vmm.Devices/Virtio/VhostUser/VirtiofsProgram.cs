using NLog;
using Vmm.Vhost;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Virtio.VhostUser;

/// <summary>A virtio-fs daemon of somebody else's: there are two programs of the name virtiofsd, with different options.</summary>
/// <param name="Path">The program.</param>
/// <param name="IsLegacy">Whether it is QEMU's, in C, which QEMU had up to version 7.2; if not, it is the one in Rust.</param>
internal sealed record VirtiofsProgram(string Path, bool IsLegacy)
{
    /// <summary>What is started to share <paramref name="source"/>.</summary>
    /// <param name="name">The device, for messages.</param>
    /// <param name="source">The directory.</param>
    /// <exception cref="VhostException">The directory or the program is missing.</exception>
    public static DaemonProgram For(string name, FsSource source)
    {
        if (!FileKind.IsDirectory(source.Path))
            throw new VhostException($"{name}: {source.Path} is no directory: make it first, or give another");
        if (!FileKind.IsFile(source.Daemon))
            throw new VhostException($"{name}: there is no program {source.Daemon}: leave daemon= out for our own, or give the path of a virtiofsd");
        // The daemon's current directory is another once it is confined.
        source = source with { Path = RealPath.Absolute(source.Path), Daemon = RealPath.Absolute(source.Daemon) };
        var program = new VirtiofsProgram(source.Daemon, System.IO.Path.GetFileName(System.IO.Path.GetDirectoryName(source.Daemon)) == "qemu");
        return new DaemonProgram(program.Path, program.Path, socket => program.Arguments(source, socket)) { LevelOf = program.LevelOf };
    }

    /// <summary>How bad a line is that it says. QEMU's does not tell, but was told to say what is worth a warning only.</summary>
    internal LogLevel LevelOf(string line) => line switch
    {
        _ when IsLegacy => LogLevel.Warn,
        _ when line.Contains(" ERROR ", StringComparison.Ordinal) => LogLevel.Error,
        _ when line.Contains(" WARN ", StringComparison.Ordinal) => LogLevel.Warn,
        _ => LogLevel.Info,
    };

    /// <summary>Its arguments for <paramref name="source"/>, with a listening socket as descriptor <paramref name="socket"/>.</summary>
    public string[] Arguments(FsSource source, int socket) => IsLegacy
        ? [$"--fd={socket}", "-f", "-o", "log_level=warn", "-o", $"source={Escape(source.Path)}", "-o", $"sandbox={source.Sandbox}"]
        : [$"--fd={socket}", $"--shared-dir={source.Path}", $"--sandbox={source.Sandbox}"];

    // In an -o list a comma ends a value, unless a backslash stands before it.
    private static string Escape(string path) =>
        path.Replace("\\", "\\\\", StringComparison.Ordinal).Replace(",", "\\,", StringComparison.Ordinal);
}
