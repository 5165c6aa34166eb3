using System.Text;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Fakes;

/// <summary>A program that says its last words just before it is seen to have ended, and after what it had said was read.</summary>
internal sealed class LastWords(string words) : IStartedProcess
{
    private readonly (UnixSocket Ours, UnixSocket Its) _output = UnixSocket.Pair();
    private readonly EventFd _ended = EndedAlready();
    private bool _hasSpoken;

    public string HowItEnds { get; init; } = "status 3";

    public int Id => 1;

    public FileDescriptor Output => _output.Ours;

    public FileDescriptor Ended => _ended;

    public string? End
    {
        get
        {
            if (!_hasSpoken && words.Length > 0)
                _output.Its.WriteAll(Encoding.ASCII.GetBytes(words), "the last words");
            _hasSpoken = true;
            return HowItEnds;
        }
    }

    public bool WaitForEnd(int milliseconds) => End is not null;

    public bool Kill(int milliseconds) => WaitForEnd(milliseconds);

    public void Dispose()
    {
        _output.Ours.Dispose();
        _output.Its.Dispose();
        _ended.Dispose();
    }

    private static EventFd EndedAlready()
    {
        var ended = new EventFd();
        ended.Signal();
        return ended;
    }
}
