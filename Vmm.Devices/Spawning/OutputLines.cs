using Vmm.Vhost.Native;

namespace Vmm.Devices.Spawning;

/// <summary>What a program says, line by line.</summary>
/// <param name="longest">Bytes of a line that are kept; the rest of a longer one is dropped.</param>
internal sealed class OutputLines(int longest)
{
    // A program that writes faster than it is read must not hold its reader up for ever. It is as much as a pipe holds: what a program leaves behind is read at once.
    private const int MaxCall = 64 * 1024;

    private readonly byte[] _line = new byte[longest];
    private int _length;

    /// <summary>Reads what there is, without waiting, but not much more than 64 KiB.</summary>
    /// <param name="output">The end of its pipe, non-blocking.</param>
    /// <param name="take">Gets each line that has ended.</param>
    /// <returns>0 at the end, after which <see cref="End"/> gives what stands behind the last line feed; less: the negated error number. That is
    /// EAGAIN where all was read that there is now, and where more is left for the next call.</returns>
    public int Read(FileDescriptor output, Action<string> take)
    {
        Span<byte> buffer = stackalloc byte[1024];
        int count = 0;
        for (int total = 0; total <= MaxCall && (count = output.TryRead(buffer)) > 0; total += count)
        {
            foreach (byte value in buffer[..count])
            {
                if (value == '\n')
                    Take(take);
                else if (_length < _line.Length)
                    _line[_length++] = value;
            }
        }
        return count > 0 ? -Errnos.Eagain : count;
    }

    /// <summary>The program says nothing more.</summary>
    public void End(Action<string> take)
    {
        if (_length > 0)
            Take(take);
    }

    // Bytes that are no UTF-8 stay what they are: a name of a file may have them.
    private void Take(Action<string> take)
    {
        string line = ByteText.Decode(_line.AsSpan(0, _length));
        _length = 0;
        take(line);
    }
}
