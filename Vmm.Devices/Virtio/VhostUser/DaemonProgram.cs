using NLog;

namespace Vmm.Devices.Virtio.VhostUser;

/// <summary>A program that serves a device as a vhost-user back-end.</summary>
/// <param name="Name">What it is called in messages.</param>
/// <param name="Path">The file.</param>
/// <param name="Arguments">Its arguments, for a listening socket that it has inherited by the number given. It is to end when its first
/// front-end leaves.</param>
public sealed record DaemonProgram(string Name, string Path, Func<int, string[]> Arguments)
{
    /// <summary>The device in messages, behind its option: <c>path=disk.img</c>.</summary>
    public string Label { get; init; } = Name;

    /// <summary>Whether it is this program, as <c>vmm backend</c>: see <see cref="Vhost.Native.ChildProcess.Start"/>.</summary>
    public bool IsOwn { get; init; }

    /// <summary>Further arguments that it has when it is started for the first time only (<see cref="Spawning.SpawnerProgram.FirstArguments"/>).</summary>
    public IReadOnlyList<string> FirstArguments { get; init; } = [];

    /// <summary>The disk that it serves, which is kept for it; null for none.</summary>
    public DaemonDisk? Disk { get; init; }

    /// <summary>A socket that it listens on besides, and may not be able to remove itself; null for none.</summary>
    public string? Socket { get; init; }

    /// <summary>How bad a line is that it writes; all are of level info where nothing is said. Those of our own programs say it themselves.</summary>
    public Func<string, LogLevel> LevelOf { get; init; } = static _ => LogLevel.Info;

    /// <summary>What a user can do about the last line that it wrote before it ended; empty, or a colon first.</summary>
    public Func<string, string> Advice { get; init; } = static _ => "";

    /// <summary>Takes the first line that it writes; null to have it logged as the others are.</summary>
    public Action<string>? FirstLine { get; init; }
}
