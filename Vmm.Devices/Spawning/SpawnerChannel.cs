using System.Runtime.InteropServices;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Spawning;

/// <summary>What is asked of a spawner in another process.</summary>
internal enum SpawnerRequest
{
    /// <summary>Adds a program: its path, whether it is this program, its other socket, how many of its arguments, the last ones, are for its first start only, and its
    /// arguments, with a zero byte between any two.</summary>
    Add = 1,

    /// <summary>Adds a path to connect to. Its number is the answer.</summary>
    AllowConnection,

    /// <summary>Adds a socket or a directory to remove at the end.</summary>
    RemoveAtEnd,

    /// <summary>From now on the requests above are refused.</summary>
    Close,

    /// <summary>Starts program N: its process id, its output and a descriptor of its end are the answer.</summary>
    Start,

    /// <summary>How program N ended is the answer; no words while it runs.</summary>
    GetEnd,

    /// <summary>Kills program N.</summary>
    Kill,

    /// <summary>Ends program N and removes its sockets.</summary>
    Remove,

    /// <summary>Connects to path N: the socket is the answer.</summary>
    Connect,
}

/// <summary>Messages between a process and its spawner: three numbers, text and descriptors, in both directions.</summary>
/// <param name="socket">The connection, which belongs to it.</param>
/// <param name="takesDescriptors">Whether descriptors are received. If not, the kernel drops what is sent: they could be the other side's own end of the
/// connection, which then had no end.</param>
/// <param name="ended">What becomes readable once the other process has ended: somebody else may still have its end of the connection. Null where that is not
/// looked at. It stays the caller's.</param>
internal sealed class SpawnerChannel(UnixSocket socket, bool takesDescriptors = true, FileDescriptor? ended = null) : IDisposable
{
    /// <summary>The most bytes of text.</summary>
    public const int MaxText = 256 << 10;

    private const int HeaderSize = 4 * sizeof(int);

    /// <summary>Whether the connection is of no use any more: the other side has ended, or what came from it is no message.</summary>
    public bool HasEnded { get; private set; }

    /// <summary>Sends a message.</summary>
    /// <param name="sequence">The number of a request; an answer has that of its request.</param>
    /// <param name="kind">A request; in an answer the error number.</param>
    /// <param name="number">What it is about.</param>
    /// <param name="text">Text, at most <see cref="MaxText"/> bytes.</param>
    /// <param name="descriptors">What goes with it; they stay the caller's.</param>
    /// <exception cref="IOException">The other side is gone.</exception>
    public void Send(int sequence, int kind, int number, string text = "", params ReadOnlySpan<FileDescriptor> descriptors)
    {
        byte[] bytes = ByteText.Encode(text);
        if (bytes.Length > MaxText)
            throw new IOException($"a program's arguments are {bytes.Length} bytes long; at most {MaxText} are possible");
        byte[] message = [.. MemoryMarshal.Cast<int, byte>([sequence, kind, number, bytes.Length]), .. bytes];
        ReadOnlySpan<byte> rest = message;
        while (!rest.IsEmpty)
        {
            int sent = socket.TrySend(rest, descriptors);
            if (sent > 0)
            {
                rest = rest[sent..];
                descriptors = [];
            }
            else if (sent != -Errnos.Eagain)
            {
                throw new ErrnoException("sendmsg", -sent);
            }
            else if (!TryWait(PollEvents.Writable, -1))
            {
                throw new ErrnoException("sendmsg", Errnos.Epipe);
            }
        }
    }

    /// <summary>Waits for a message.</summary>
    /// <param name="message">The message; its descriptors are the caller's to close.</param>
    /// <param name="patience">Milliseconds until it must have begun, and so many for the rest of it; -1: it may take as long as it likes.</param>
    /// <returns>False if none has come in time, and once the connection <see cref="HasEnded"/>.</returns>
    public bool TryReceive(out SpawnerMessage message, int patience = -1)
    {
        message = default;
        var descriptors = new List<FileDescriptor>();
        Span<int> header = stackalloc int[4];
        Span<byte> rest = MemoryMarshal.AsBytes(header);
        if (HasEnded || (!TryFill(ref rest, descriptors, patience) && !HasEnded && rest.Length == HeaderSize))
            return false;
        if (rest.IsEmpty && header[3] is >= 0 and <= MaxText)
        {
            byte[] text = new byte[header[3]];
            rest = text;
            if (TryFill(ref rest, descriptors, patience))
            {
                message = new SpawnerMessage(header[0], header[1], header[2], ByteText.Decode(text), descriptors);
                return true;
            }
        }
        // Where the next message begins is not known.
        HasEnded = true;
        foreach (FileDescriptor descriptor in descriptors)
            descriptor.Dispose();
        return false;
    }

    /// <inheritdoc/>
    public void Dispose() => socket.Dispose();

    // Fills target, of which is left what has not come in time.
    private bool TryFill(ref Span<byte> target, List<FileDescriptor> descriptors, int patience)
    {
        long end = Environment.TickCount64 + patience;
        while (!target.IsEmpty)
        {
            if (!TryWait(PollEvents.Readable, patience < 0 ? -1 : (int)Math.Max(end - Environment.TickCount64, 0)))
            {
                HasEnded = true;
                return false;
            }
            int count = takesDescriptors ? socket.TryReceive(target, descriptors, out _) : socket.TryRead(target);
            if (count > 0)
            {
                target = target[count..];
            }
            else if (count != -Errnos.Eagain)
            {
                HasEnded = true;
                return false;
            }
            else if (patience >= 0 && Environment.TickCount64 >= end)
            {
                return false;
            }
        }
        return true;
    }

    // False once the other process has ended. A signal, and the end of the time, end the wait: the caller looks whether there is something.
    private bool TryWait(PollEvents events, int milliseconds)
    {
        Span<PollEntry> entries = [new PollEntry(socket, events), new PollEntry(ended, PollEvents.Readable)];
        Poll.Wait(entries, milliseconds);
        return entries[1].Happened == PollEvents.None;
    }
}

/// <summary>A message that was received.</summary>
/// <param name="Sequence">The number of the request.</param>
/// <param name="Kind">A <see cref="SpawnerRequest"/>; in an answer the error number, 0 for none.</param>
/// <param name="Number">What it is about.</param>
/// <param name="Text">Text.</param>
/// <param name="Descriptors">What came with it.</param>
internal readonly record struct SpawnerMessage(int Sequence, int Kind, int Number, string Text, List<FileDescriptor> Descriptors);
