using System.Runtime.Versioning;
using NUnit.Framework;
using Vmm.Guest;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Guest;

/// <summary>The real agent as a process of this host, on a pair of sockets in place of vsock, or on a terminal in place of a console.</summary>
[SupportedOSPlatform("linux")]
internal sealed class AgentProcess : IDisposable
{
    private readonly ChildProcess _process;
    private readonly string _file;

    public AgentProcess(bool usesTerminal = false)
    {
        _file = Path.Combine(Path.GetTempPath(), $"vmm-agent-{Guid.NewGuid():N}");
        File.WriteAllBytes(_file, GuestInitramfs.ReadAgent());
        File.SetUnixFileMode(_file, UnixFileMode.UserRead | UnixFileMode.UserExecute);
        (Socket, FileDescriptor other) = usesTerminal ? Terminal() : UnixSocket.Pair();
        using (other)
            _process = ChildProcess.Start(_file, ["serve"], other);
    }

    /// <summary>The host's end.</summary>
    public FileDescriptor Socket { get; }

    private static (FileDescriptor, FileDescriptor) Terminal()
    {
        TerminalMaster terminal = TerminalMaster.Open();
        return (terminal, FileDescriptor.Open(terminal.Path, OpenMode.ReadWrite));
    }

    /// <summary>Whether it has ended within so many milliseconds.</summary>
    public bool HasEnded(int milliseconds) => _process.WaitForEnd(milliseconds);

    /// <summary>Waits for its end, which comes with that of the command.</summary>
    public void WaitForEnd() => Assert.That(_process.WaitForEnd(10_000), Is.True, "the agent still runs");

    public void Dispose()
    {
        Socket.Dispose();
        _process.Dispose();
        File.Delete(_file);
    }
}
