using Vmm.Vhost.Native;

namespace Vmm.Devices.Spawning;

/// <summary>What devices do to the host outside of their own descriptors: programs are started, sockets connected to and removed. A process that is confined
/// has it done by another one, which does only what it was told before (<see cref="RemoteSpawner"/>). Thread-safe.</summary>
public interface ISpawner : IDisposable
{
    /// <summary>Says that <paramref name="program"/> will be started, and makes a directory for its socket, that nobody else may look into.</summary>
    /// <exception cref="IOException">There is no place for it, or it comes after <see cref="Close"/>.</exception>
    SpawnerSlot Add(SpawnerProgram program);

    /// <summary>Starts the program in <paramref name="slot"/>. It can be connected to when this returns. One that was started before is
    /// killed.</summary>
    /// <exception cref="IOException">It cannot be started.</exception>
    IStartedProcess Start(SpawnerSlot slot);

    /// <summary>Ends the program in <paramref name="slot"/>, if it runs, and removes its sockets. One that was connected to has 2 s to end by itself.</summary>
    void Remove(SpawnerSlot slot);

    /// <summary>Says that the socket at <paramref name="path"/> will be connected to.</summary>
    /// <exception cref="IOException">It comes after <see cref="Close"/>.</exception>
    void AllowConnection(string path);

    /// <summary>Connects to the socket at <paramref name="path"/>, that of a slot or one of <see cref="AllowConnection"/>.</summary>
    /// <returns>0, or the error number.</returns>
    /// <exception cref="IOException">The other process is gone (EPIPE), or has not answered in time (ETIMEDOUT).</exception>
    int TryConnect(string path, out UnixSocket? socket);

    /// <summary>Has the socket at <paramref name="path"/>, on which this process listens, removed at its end; or the directory, with all that is in it then.</summary>
    /// <exception cref="IOException">It comes after <see cref="Close"/>.</exception>
    void RemoveAtEnd(string path);

    /// <summary>All is said: from now on there are no further programs and paths.</summary>
    /// <exception cref="IOException">The other process is gone.</exception>
    void Close();
}

/// <summary>A program that is started with a listening socket as descriptor <see cref="ChildProcess.InheritedNumber"/>.</summary>
/// <param name="Path">The file.</param>
/// <param name="Arguments">Its arguments, without its name.</param>
/// <param name="IsOwn">Whether it is this program: see <see cref="ChildProcess.Start"/>.</param>
/// <param name="Socket">A socket that it listens on besides, and may not be able to remove itself; null for none.</param>
public sealed record SpawnerProgram(string Path, IReadOnlyList<string> Arguments, bool IsOwn, string? Socket)
{
    /// <summary>Further arguments, behind <see cref="Arguments"/>, that it has when it is started for the first time only: what they ask for is not to happen again when it is started in the
    /// place of one that is gone.</summary>
    public IReadOnlyList<string> FirstArguments { get; init; } = [];
}

/// <summary>The place of a program in a spawner.</summary>
/// <param name="Index">Its number, from 0.</param>
/// <param name="SocketPath">The socket that it listens on.</param>
public sealed record SpawnerSlot(int Index, string SocketPath);
