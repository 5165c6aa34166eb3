using System.Buffers.Binary;
using Vmm.Vhost.Native;

namespace Vmm.Guest;

/// <summary>A command that the guest's agent is to run.</summary>
internal sealed record GuestCommand
{
    private const uint TerminalFlag = 1, TerminalErrorFlag = 2, DirectoryOptionalFlag = 4, ErrorIsOutputFlag = 8, QuietFlag = 16;
    private const int HeadSize = 20;

    /// <summary>The program and its arguments; none for the user's shell.</summary>
    public IReadOnlyList<string> Arguments { get; init; } = [];

    /// <summary>Its environment, each as NAME=VALUE; the agent adds PATH, HOME, USER and LOGNAME where they are missing.</summary>
    public IReadOnlyList<string> Environment { get; init; } = [];

    /// <summary>Its working directory.</summary>
    public string Directory { get; init; } = "/";

    /// <summary>Whether / will do if that is not there; with a root that is written, an empty directory.</summary>
    public bool IsDirectoryOptional { get; init; }

    /// <summary>Who it runs as: NAME or UID, then perhaps :GROUP; empty for root.</summary>
    public string User { get; init; } = "";

    /// <summary>Whether its standard input and output are a terminal.</summary>
    public bool HasTerminal { get; init; }

    /// <summary>Whether its standard error is that terminal, too.</summary>
    public bool HasTerminalError { get; init; }

    /// <summary>Whether its standard error is its standard output, so that what it writes to them stays in order. Not with a terminal.</summary>
    public bool IsErrorOutput { get; init; }

    /// <summary>The rights that its new files do not get (umask(2)).</summary>
    public UnixFileMode Umask { get; init; } = ProcessUmask.Usual;

    /// <summary>Whether the agent writes nothing of its own to standard error.</summary>
    public bool IsQuiet { get; init; }

    /// <summary>What follows the head of <see cref="AgentFrameType.Start"/>.</summary>
    /// <param name="rows">The terminal's, 0 where unknown.</param>
    /// <param name="columns">The terminal's, 0 where unknown.</param>
    /// <exception cref="UsageException">It is longer than an agent takes, or a text has a null character in it.</exception>
    public byte[] Encode(ushort rows, ushort columns)
    {
        using var stream = new MemoryStream();
        Span<byte> head = stackalloc byte[HeadSize];
        BinaryPrimitives.WriteUInt32LittleEndian(head, (HasTerminal ? TerminalFlag : 0) | (HasTerminalError ? TerminalErrorFlag : 0)
            | (IsDirectoryOptional ? DirectoryOptionalFlag : 0) | (IsErrorOutput ? ErrorIsOutputFlag : 0) | (IsQuiet ? QuietFlag : 0));
        BinaryPrimitives.WriteUInt16LittleEndian(head[4..], rows);
        BinaryPrimitives.WriteUInt16LittleEndian(head[6..], columns);
        BinaryPrimitives.WriteInt32LittleEndian(head[8..], Arguments.Count);
        BinaryPrimitives.WriteInt32LittleEndian(head[12..], Environment.Count);
        BinaryPrimitives.WriteInt32LittleEndian(head[16..], (int)Umask);
        stream.Write(head);
        foreach (string text in (string[])[Directory, User, .. Arguments, .. Environment])
        {
            if (text.Contains('\0', StringComparison.Ordinal))
                throw new UsageException($"'{text.Replace('\0', ' ')}' has a null character in it, which no argument can have");
            stream.Write(ByteText.Encode(text));
            stream.WriteByte(0);
        }
        return stream.Length <= AgentFrame.MaxStart
            ? stream.ToArray()
            : throw new UsageException($"the command and its environment have {stream.Length} bytes: at most {AgentFrame.MaxStart} are possible");
    }
}
