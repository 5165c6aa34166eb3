using Vmm.Vhost.Native;

namespace Vmm.Guest;

/// <summary>What a command in the guest reads, from a descriptor of this process; as much as its window allows.</summary>
/// <param name="source">What is waited for; null for no input.</param>
/// <param name="own">The same terminal or pipe, opened once more, whose read never waits; null to read <paramref name="source"/>.</param>
/// <param name="terminal">The terminal that it is; null for none.</param>
/// <param name="isRaw">Whether keys are passed on as they are typed, so that the user can leave.</param>
/// <remarks>Others read the same terminal or pipe: what was there when this process was woken may be gone when it reads.</remarks>
internal sealed class InputStream(FileDescriptor? source, FileDescriptor? own, Terminal? terminal, bool isRaw)
{
    private const int MaxPending = AgentFrame.Window;

    private readonly byte[] _buffer = new byte[AgentFrame.MaxData];
    private readonly bool _isSocket = source is not null && FileKind.IsSocket(source);
    private int _window = AgentFrame.Window;
    private bool _hasEnded;
    private EscapeKey _escape;

    /// <summary>Whether it may be read once this process is in the foreground again.</summary>
    public bool IsInBackground => !_hasEnded && terminal is { IsForeground: false };

    /// <summary>The error number with which it could not be read, so that the command did not get all of it; 0 if there was none.</summary>
    public int Failure { get; private set; }

    /// <summary>What to wait for; null while nothing may be read.</summary>
    public FileDescriptor? Source(AgentConnection agent) =>
        _hasEnded || _window == 0 || agent.ToSend > MaxPending || IsInBackground ? null : source;

    /// <summary>The agent is ready: it is told if there is no input.</summary>
    public void Begin(AgentConnection agent)
    {
        if (source is null)
            End(agent);
    }

    /// <summary>Passes on what is there.</summary>
    /// <returns>False if the user leaves.</returns>
    public bool Read(AgentConnection agent)
    {
        Span<byte> room = _buffer.AsSpan(0, Math.Min(_window, _buffer.Length));
        int count = _isSocket ? source!.TryReadFromSocket(room) : (own ?? source!).TryRead(room);
        if (count == -Errnos.Eagain)
            return true;    // somebody else has read it
        if (count <= 0)
        {
            Failure = IsEnd(count) ? 0 : -count;
            End(agent);
            return true;
        }
        _window -= count;
        agent.Send(AgentFrameType.Data, AgentStream.Input, _buffer.AsSpan(0, count));
        return !(isRaw && _escape.Note(_buffer.AsSpan(0, count)));
    }

    /// <summary>The agent takes so much more.</summary>
    /// <exception cref="VmmException">It cannot have got that much.</exception>
    public void Give(uint count)
    {
        if (count > AgentFrame.Window - _window)
            throw AgentConnection.Violation("it takes more input than it was sent");
        _window += (int)count;
    }

    /// <summary>Nobody reads it in the guest any more.</summary>
    public void Close() => _hasEnded = true;

    // A terminal that was hung up says EIO. nohup(1) puts what is only open for writing in a terminal's place, so that there is no input.
    private bool IsEnd(int count) => count is 0 or -Errnos.Ebadf || (count == -Errnos.Eio && terminal is not null);

    private void End(AgentConnection agent)
    {
        if (_hasEnded)
            return;
        _hasEnded = true;
        agent.Send(AgentFrameType.End, AgentStream.Input, []);
    }
}
