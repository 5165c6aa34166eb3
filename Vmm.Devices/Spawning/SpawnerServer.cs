using System.Globalization;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Spawning;

/// <summary>The spawner's side: it does for the process at the other end of a socket what that has said beforehand, and ends with it.</summary>
/// <remarks>Whoever takes that process over can start the programs that it would have started, with their arguments, one of each at a time, and
/// connect to the sockets that it would have connected to; and nothing else.</remarks>
public sealed class SpawnerServer : IDisposable
{
    private readonly SpawnerChannel _channel;
    private readonly LocalSpawner _spawner = new();
    private readonly List<SpawnerSlot> _slots = [];
    private readonly List<string> _paths = [];
    private bool _isClosed;

    /// <summary>Serves <paramref name="socket"/>, which belongs to it from now on.</summary>
    /// <param name="socket">The connection.</param>
    /// <param name="ended">What becomes readable once the process at its other end has ended, whoever else may have that end then; null where the
    /// connection alone tells. It stays the caller's.</param>
    public SpawnerServer(UnixSocket socket, FileDescriptor? ended = null) => _channel = new SpawnerChannel(socket, takesDescriptors: false, ended);

    /// <summary>Serves until the other side ends, or breaks the protocol.</summary>
    public void Run()
    {
        while (_channel.TryReceive(out SpawnerMessage request))
        {
            try
            {
                Answer(in request);
            }
            catch (ErrnoException e)
            {
                // A request without an answer is the end: the other side would wait for it.
                if (!TryRefuse(request.Sequence, e.Errno, e.Message))
                    return;
            }
        }
    }

    /// <summary>Ends all programs and removes all sockets and directories.</summary>
    public void Dispose()
    {
        _channel.Dispose();
        _spawner.Dispose();
    }

    private void Answer(in SpawnerMessage request)
    {
        (int sequence, int number) = (request.Sequence, request.Number);
        switch ((SpawnerRequest)request.Kind)
        {
            case SpawnerRequest.Add when !_isClosed && Parse(request.Text) is { } program:
                _slots.Add(_spawner.Add(program));
                _channel.Send(sequence, 0, AddPath(_slots[^1].SocketPath), _slots[^1].SocketPath);
                break;
            case SpawnerRequest.AllowConnection when !_isClosed:
                _channel.Send(sequence, 0, AddPath(request.Text));
                break;
            case SpawnerRequest.RemoveAtEnd when !_isClosed:
                _spawner.RemoveAtEnd(request.Text);
                _channel.Send(sequence, 0, 0);
                break;
            case SpawnerRequest.Close:
                _isClosed = true;
                _channel.Send(sequence, 0, 0);
                break;
            case SpawnerRequest.Start when IsSlot(number):
                IStartedProcess process = _spawner.Start(_slots[number]);
                _channel.Send(sequence, 0, process.Id, "", process.Output, process.Ended);
                break;
            case SpawnerRequest.GetEnd when IsSlot(number):
                _channel.Send(sequence, 0, 0, _spawner.EndOf(number) ?? "");
                break;
            case SpawnerRequest.Kill when IsSlot(number):
                _spawner.Kill(number);
                _channel.Send(sequence, 0, 0);
                break;
            case SpawnerRequest.Remove when IsSlot(number):
                _spawner.Remove(_slots[number]);
                _channel.Send(sequence, 0, 0);
                break;
            case SpawnerRequest.Connect when number >= 0 && number < _paths.Count:
                Connect(sequence, _paths[number]);
                break;
            default:
                throw ErrnoException.FromElsewhere($"request {request.Kind} for {number} is refused", Errnos.Eperm);
        }
    }

    private bool IsSlot(int number) => number >= 0 && number < _slots.Count;

    private int AddPath(string path)
    {
        _paths.Add(path);
        return _paths.Count - 1;
    }

    private void Connect(int sequence, string path)
    {
        int error = _spawner.TryConnect(path, out UnixSocket? socket);
        using (socket)
        {
            if (socket is null)
                _channel.Send(sequence, error, 0);
            else
                _channel.Send(sequence, 0, 0, "", socket);
        }
    }

    private bool TryRefuse(int sequence, int errno, string message)
    {
        try
        {
            _channel.Send(sequence, errno, 0, message);
            return true;
        }
        catch (ErrnoException)
        {
            return false;
        }
    }

    private static SpawnerProgram? Parse(string text) =>
        text.Split('\0') is [string path, string own, string socket, string first, .. string[] arguments]
        && int.TryParse(first, NumberStyles.None, CultureInfo.InvariantCulture, out int count) && count <= arguments.Length
            ? new SpawnerProgram(path, arguments[..^count], own.Length > 0, socket.Length > 0 ? socket : null) { FirstArguments = arguments[^count..] }
            : null;

    /// <summary>A program as <see cref="SpawnerRequest.Add"/> has it.</summary>
    internal static string Format(SpawnerProgram program) =>
        string.Join('\0', [program.Path, program.IsOwn ? "own" : "", program.Socket ?? "", $"{program.FirstArguments.Count}", .. program.Arguments, .. program.FirstArguments]);
}
