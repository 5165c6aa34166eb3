using System.Text;

namespace Vmm.Tests.Integration;

/// <summary>Collects what comes out of a pipe or a terminal, on a thread of its own, until its end.</summary>
internal sealed class OutputCapture
{
    private readonly StringBuilder _text = new();
    private readonly Thread _thread;
    private bool _ended;

    /// <summary>Captures what <paramref name="read"/> gives (a count of bytes, 0 at the end): at once, or from <see cref="Start"/> on.</summary>
    public OutputCapture(Func<byte[], int> read, bool start)
    {
        _thread = new Thread(() => Read(read)) { IsBackground = true, Name = "output" };
        if (start)
            _thread.Start();
    }

    /// <summary>All there is so far, each byte a character.</summary>
    public string Text
    {
        get
        {
            lock (_text)
                return _text.ToString();
        }
    }

    /// <summary>Begins to read.</summary>
    public void Start() => _thread.Start();

    /// <summary>Waits until <paramref name="wanted"/> is there <paramref name="times"/> times.</summary>
    /// <returns>Whether it was within <paramref name="timeout"/> and before the end.</returns>
    public bool WaitFor(string wanted, int times, TimeSpan timeout) => WaitUntil(() => Count(wanted) >= times, timeout);

    /// <summary>Waits for the end.</summary>
    public bool WaitForEnd(TimeSpan timeout) => WaitUntil(() => _ended, timeout);

    private bool WaitUntil(Func<bool> condition, TimeSpan timeout)
    {
        long deadline = Environment.TickCount64 + (long)timeout.TotalMilliseconds;
        lock (_text)
        {
            while (!condition())
            {
                long left = deadline - Environment.TickCount64;
                if (_ended || left <= 0)
                    return false;
                Monitor.Wait(_text, (int)left);
            }
            return true;
        }
    }

    private int Count(string wanted)
    {
        string text = _text.ToString();
        int count = 0;
        for (int at = text.IndexOf(wanted, StringComparison.Ordinal); at >= 0; at = text.IndexOf(wanted, at + wanted.Length, StringComparison.Ordinal))
            count++;
        return count;
    }

    private void Read(Func<byte[], int> read)
    {
        byte[] buffer = new byte[4096];
        int count;
        do
        {
            count = ReadSome(read, buffer);
            lock (_text)
            {
                _text.Append(Encoding.Latin1.GetString(buffer, 0, count));
                _ended = count == 0;
                Monitor.PulseAll(_text);
            }
        }
        while (count != 0);
    }

    // A pseudo-terminal whose program has ended gives EIO, a pipe of ours that was closed an exception.
    private static int ReadSome(Func<byte[], int> read, byte[] buffer)
    {
        try
        {
            return read(buffer);
        }
        catch (Exception e) when (e is IOException or ObjectDisposedException)
        {
            return 0;
        }
    }
}
