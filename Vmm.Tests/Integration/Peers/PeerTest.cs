using System.Diagnostics;
using NUnit.Framework;
using Vmm.Tests.Integration.Backends;

namespace Vmm.Tests.Integration.Peers;

/// <summary>A test of our back-ends with front-ends that others have written. They need no KVM.</summary>
[Category("Peers")]
public abstract class PeerTest : BackendTest
{
    /// <summary>Starts a peer, which is killed when the test ends.</summary>
    private protected PeerProcess StartPeer(string program, params string[] arguments) => Keep(new PeerProcess(program, arguments));
}

/// <summary>A program of others', and what it writes.</summary>
internal sealed class PeerProcess : IDisposable
{
    private readonly Process _process;
    private readonly OutputCapture _output;
    private readonly OutputCapture _errors;
    private bool _isDisposed;

    public PeerProcess(string program, IEnumerable<string> arguments)
    {
        _process = Process.Start(new ProcessStartInfo(program, arguments)
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        })!;
        _output = new OutputCapture(buffer => _process.StandardOutput.BaseStream.Read(buffer), start: true);
        _errors = new OutputCapture(buffer => _process.StandardError.BaseStream.Read(buffer), start: true);
    }

    /// <summary>What it wrote so far.</summary>
    public string Text => VmmProcess.Show(_output.Text, _errors.Text);

    public string Output => _output.Text;

    public void Send(string text)
    {
        _process.StandardInput.Write(text);
        _process.StandardInput.Flush();
    }

    public void WaitForOutput(string text, TimeSpan limit)
    {
        if (!_output.WaitFor(text, 1, limit))
            throw new AssertionException($"\"{text}\" was not written\n{Text}");
    }

    public int WaitForEnd(TimeSpan limit)
    {
        if (!_process.WaitForExit(limit))
            throw new AssertionException($"it did not end\n{Text}");
        return _process.ExitCode;
    }

    public void Dispose()
    {
        if (_isDisposed)
            return;
        _isDisposed = true;
        if (!_process.HasExited)
            _process.Kill();
        _process.WaitForExit();
        _process.Dispose();
    }
}
