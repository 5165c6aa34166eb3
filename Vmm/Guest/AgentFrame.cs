using System.Runtime.InteropServices;

namespace Vmm.Guest;

/// <summary>The head of each frame between vmm and the guest's agent (docs/agent.md); little-endian.</summary>
[StructLayout(LayoutKind.Sequential)]
internal readonly record struct AgentFrame(AgentFrameType Type, AgentStream Stream, ushort Reserved, uint Length)
{
    /// <summary>Bytes on the wire.</summary>
    public const int WireSize = 8;

    /// <summary>The most bytes behind the head of a frame of data.</summary>
    public const int MaxData = 64 << 10;

    /// <summary>The most bytes behind any other head that comes from the agent.</summary>
    public const int MaxOther = 512;

    /// <summary>The most bytes behind the head of <see cref="AgentFrameType.Start"/>.</summary>
    public const int MaxStart = 16 << 20;

    /// <summary>Bytes of a stream that may be sent before the other side gives more.</summary>
    public const int Window = 256 << 10;

    /// <summary>What <see cref="AgentFrameType.Hello"/> begins with: "VMMA".</summary>
    public const uint Magic = 0x414d4d56;

    /// <summary>The version that follows it.</summary>
    public const uint Version = 5;
}

/// <summary>What a frame says.</summary>
internal enum AgentFrameType : byte
{
    /// <summary>Agent: magic, version, the kernel's release. The first frame.</summary>
    Hello = 1,

    /// <summary>Host: the command.</summary>
    Start = 2,

    /// <summary>Agent: the command runs; its process id.</summary>
    Started = 3,

    /// <summary>Both: bytes of a stream.</summary>
    Data = 4,

    /// <summary>Both: this side sends no more on the stream.</summary>
    End = 5,

    /// <summary>Both: so many bytes more may be sent on the stream.</summary>
    Window = 6,

    /// <summary>Both: nobody reads the stream here any more.</summary>
    Closed = 7,

    /// <summary>Host: a signal for the command.</summary>
    Signal = 8,

    /// <summary>Agent: it was sent.</summary>
    Signalled = 9,

    /// <summary>Host: rows and columns of the terminal, 16 bits each.</summary>
    Resize = 10,

    /// <summary>Agent: how the command ended. The last frame.</summary>
    Exit = 11,

    /// <summary>Host: show what the kernel has said last on the serial port.</summary>
    Log = 12,

    /// <summary>Agent: that was done.</summary>
    Logged = 13,
}

/// <summary>A stream of the command's.</summary>
internal enum AgentStream : byte
{
    /// <summary>Standard input.</summary>
    Input = 0,

    /// <summary>Standard output; with a terminal, what is on it.</summary>
    Output = 1,

    /// <summary>Standard error.</summary>
    Error = 2,
}
