using Vmm.Vhost.Native;

namespace Vmm.Guest;

/// <summary>What a command in the guest reads, from a descriptor of this process; as much as its window allows.</summary>
internal sealed class InputStream(FileDescriptor? source, Terminal? terminal, bool isRaw)
{
    private const int MaxPending = AgentFrame.Window;

    private readonly byte[] _buffer = new byte[AgentFrame.MaxData];
    private int _window = AgentFrame.Window;
    private bool _hasEnded;
    private EscapeKey _escape;

    /// <summary>Whether it may be read once this process is in the foreground again.</summary>
    public bool IsInBackground => !_hasEnded && terminal is { IsForeground: false };

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
        int count = source!.TryRead(_buffer.AsSpan(0, Math.Min(_window, _buffer.Length)));
        if (count == -Errnos.Eagain)
            return true;    // somebody else reads the same pipe
        if (count <= 0)
        {
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

    private void End(AgentConnection agent)
    {
        if (_hasEnded)
            return;
        _hasEnded = true;
        agent.Send(AgentFrameType.End, AgentStream.Input, []);
    }
}
