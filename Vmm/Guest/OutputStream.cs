using Vmm.Devices;
using Vmm.Vhost.Native;

namespace Vmm.Guest;

/// <summary>What a command in the guest writes, on its way to a descriptor of this process. It keeps what the descriptor does not take yet, which
/// the window bounds, and gives the agent as much back as was written.</summary>
internal sealed class OutputStream
{
    private const int PipeChunk = 4096;     // PIPE_BUF: what a pipe that polls as writable takes without blocking
    private const int LeastToGiveBack = AgentFrame.Window / 4;

    private readonly FileDescriptor? _target;
    private readonly int _chunk;
    private readonly bool _isSocket;
    private readonly AgentStream _stream;
    private readonly ByteQueue _queue = new(AgentFrame.Window);
    private readonly Action? _close;
    private uint _written;      // and not yet given back
    private bool _isClosed;
    private bool _hasEnded;

    /// <summary>Writes to <paramref name="target"/>; null: to nowhere, as /dev/null does. A command that was started with a stream closed goes on.</summary>
    /// <param name="stream">Which stream it is.</param>
    /// <param name="target">The descriptor, which stays the caller's.</param>
    /// <param name="isFile">Whether it is a regular file, which always takes what it is given.</param>
    /// <param name="close">Called once all is written, to tell whoever reads that this is the end; null for nothing.</param>
    public OutputStream(AgentStream stream, FileDescriptor? target, bool isFile = false, Action? close = null)
    {
        (_stream, _target, _close) = (stream, target, close);
        _chunk = isFile ? AgentFrame.Window : PipeChunk;
        _isSocket = target is not null && FileKind.IsSocket(target);
    }

    /// <summary>What to wait for: room for what is kept, or that nobody reads any more; null for nothing.</summary>
    public FileDescriptor? Target => _isClosed || (_hasEnded && _queue.Count == 0) ? null : _target;

    /// <summary>Whether something is kept.</summary>
    public bool HasWork => _queue.Count > 0;

    /// <summary>The error number with which the target refused what the guest wrote, so that it is lost; 0 if it did not. That nobody reads any more is none.</summary>
    public int Failure { get; private set; }

    /// <summary>Takes bytes from the guest.</summary>
    /// <exception cref="VmmException">They are more than the guest's window.</exception>
    public void Add(AgentConnection agent, ReadOnlySpan<byte> data)
    {
        if (_isClosed && !_hasEnded)
            return;     // the agent is told, but has sent this before
        if (data.Length > _queue.Room || _hasEnded)
            throw AgentConnection.Violation("it sends more output than it may");
        if (_target is null)
        {
            _written += (uint)data.Length;
            GiveBack(agent);
            return;
        }
        _queue.Add(data);
        Write(agent, Poll.IsWritable(_target));
    }

    /// <summary>The guest sends no more.</summary>
    public void End()
    {
        if (_hasEnded)
            return;
        _hasEnded = true;
        CloseIfDone();
    }

    /// <summary>Something happened on the target.</summary>
    public void Happened(AgentConnection? agent, PollEvents events)
    {
        if ((events & (PollEvents.Error | PollEvents.HangUp | PollEvents.Invalid)) != 0)
            Close(agent);
        else
            Write(agent, (events & PollEvents.Writable) != 0);
    }

    private void Write(AgentConnection? agent, bool isWritable)
    {
        while (isWritable && _queue.Count > 0)
        {
            ReadOnlySpan<byte> first = _queue.First;
            first = first[..Math.Min(first.Length, _chunk)];
            int count = _isSocket ? _target!.TryWriteToSocket(first) : _target!.TryWrite(first);
            if (count == -Errnos.Eagain)
                break;
            if (count < 0)
            {
                Failure = count == -Errnos.Epipe ? 0 : -count;
                Close(agent);
                return;
            }
            _queue.Remove(count);
            _written += (uint)count;
            isWritable = _chunk > PipeChunk || Poll.IsWritable(_target!);
        }
        GiveBack(agent);
        CloseIfDone();
    }

    private void GiveBack(AgentConnection? agent)
    {
        if (_written < LeastToGiveBack && (_written == 0 || _queue.Count > 0))
            return;
        if (!_hasEnded)
            agent?.Send(AgentFrameType.Window, _stream, _written);
        _written = 0;
    }

    private void Close(AgentConnection? agent)
    {
        if (_isClosed)
            return;
        _isClosed = true;
        _queue.Remove(_queue.Count);
        if (!_hasEnded)
            agent?.Send(AgentFrameType.Closed, _stream, []);
    }

    private void CloseIfDone()
    {
        if (!_hasEnded || _queue.Count > 0 || _isClosed)
            return;
        _isClosed = true;
        _close?.Invoke();
    }
}
