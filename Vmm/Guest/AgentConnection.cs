using System.Buffers.Binary;
using System.Runtime.InteropServices;
using Vmm.Devices;
using Vmm.Vhost.Native;

namespace Vmm.Guest;

/// <summary>Frames on the connection with the guest's agent, a socket or a terminal that never waits. Nothing waits: what cannot be sent yet is kept.</summary>
/// <param name="connection">The connection, which belongs to it.</param>
/// <param name="awaitsAnswer">Whether the line <c>OK port</c> comes first, once the guest has connected (<see cref="GuestDirectory.AcceptAgent"/>).</param>
/// <remarks>The guest is hostile. A frame is checked for its length here, and for its sense by whoever gets it.</remarks>
internal sealed class AgentConnection(FileDescriptor connection, bool awaitsAnswer = false) : IDisposable
{
    private readonly byte[] _received = new byte[AgentFrame.WireSize + AgentFrame.MaxData];
    private readonly ByteQueue _toSend = new(MaxToSend);
    private int _count;
    private int _taken;
    private bool _awaitsAnswer = awaitsAnswer;

    /// <summary>Whether the answer has come: the guest has connected.</summary>
    public bool IsAnswered { get; private set; }

    private const int MaxAnswer = 32;

    // The command, what the windows allow of its input, and some small frames.
    private const int MaxToSend = 32 << 20;

    /// <summary>The connection, to be waited for.</summary>
    public FileDescriptor Descriptor => connection;

    /// <summary>Whether something is kept that <see cref="Flush"/> could not send yet.</summary>
    public bool HasToSend => _toSend.Count > 0;

    /// <summary>How many bytes are kept.</summary>
    public int ToSend => _toSend.Count;

    /// <summary>Sends a frame, or keeps it.</summary>
    public void Send(AgentFrameType type, AgentStream stream, ReadOnlySpan<byte> data)
    {
        var head = new AgentFrame(type, stream, 0, (uint)data.Length);
        if (_toSend.Room < AgentFrame.WireSize + data.Length)
            return;     // the agent takes nothing any more: whoever waits for an answer finds out
        _toSend.Add(MemoryMarshal.AsBytes(new ReadOnlySpan<AgentFrame>(in head)));
        _toSend.Add(data);
        Flush();
    }

    /// <summary>Sends a frame with a number.</summary>
    public void Send(AgentFrameType type, AgentStream stream, uint number)
    {
        Span<byte> bytes = stackalloc byte[sizeof(uint)];
        BinaryPrimitives.WriteUInt32LittleEndian(bytes, number);
        Send(type, stream, bytes);
    }

    /// <summary>Sends what the connection takes. That it is broken is seen when it is read.</summary>
    public void Flush()
    {
        while (_toSend.Count > 0)
        {
            int sent = connection.TryWrite(_toSend.First);
            if (sent == -Errnos.Eagain)
                return;
            _toSend.Remove(sent > 0 ? sent : _toSend.Count);
        }
    }

    /// <summary>Receives what is there.</summary>
    /// <returns>False at the end of the connection.</returns>
    public bool Receive()
    {
        Array.Copy(_received, _taken, _received, 0, _count - _taken);
        _count -= _taken;
        _taken = 0;
        int count = connection.TryRead(_received.AsSpan(_count));
        if (count == -Errnos.Eagain)
            return true;
        if (count <= 0)
            return false;
        _count += count;
        return true;
    }

    /// <summary>The exception for an agent that does not keep to the protocol.</summary>
    /// <param name="what">What it does.</param>
    public static VmmException Violation(string what) => new($"the guest's agent does not keep to the protocol: {what}: start the guest again");

    /// <summary>The next whole frame of what was received.</summary>
    /// <param name="head">Its head.</param>
    /// <param name="data">What follows, until the next call of <see cref="Receive"/>.</param>
    /// <exception cref="VmmException">The guest sends a frame longer than any, or its back-end something else than the answer.</exception>
    public bool TryTake(out AgentFrame head, out ReadOnlySpan<byte> data)
    {
        head = default;
        data = default;
        if (_awaitsAnswer && !TryTakeAnswer())
            return false;
        ReadOnlySpan<byte> rest = _received.AsSpan(_taken, _count - _taken);
        if (rest.Length < AgentFrame.WireSize)
            return false;
        head = MemoryMarshal.Read<AgentFrame>(rest);
        if (head.Length > (head.Type == AgentFrameType.Data ? AgentFrame.MaxData : AgentFrame.MaxOther))
            throw Violation($"it sends a frame of type {(int)head.Type} with {head.Length} bytes, which is too long");
        if (rest.Length < AgentFrame.WireSize + (int)head.Length)
            return false;
        data = rest.Slice(AgentFrame.WireSize, (int)head.Length);
        _taken += AgentFrame.WireSize + (int)head.Length;
        return true;
    }

    /// <inheritdoc/>
    public void Dispose() => connection.Dispose();

    private bool TryTakeAnswer()
    {
        ReadOnlySpan<byte> rest = _received.AsSpan(_taken, Math.Min(_count - _taken, MaxAnswer));
        int end = rest.IndexOf((byte)'\n');
        if (end < 0 && rest.Length < MaxAnswer)
            return false;
        if (end < 0 || !rest.StartsWith("OK "u8))
            throw new VmmException("the back-end of the guest's vsock device does not say OK where the agent connects");
        _taken += end + 1;
        _awaitsAnswer = false;
        IsAnswered = true;
        return true;
    }
}
