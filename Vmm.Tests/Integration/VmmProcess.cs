using System.Diagnostics;
using System.IO.Pipes;
using Microsoft.Win32.SafeHandles;
using NUnit.Framework;
using Tmds.Linux;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Integration;

/// <summary>What a finished run of vmm left: its exit status and all it wrote.</summary>
internal sealed record VmmResult(int ExitCode, string Output, string Errors)
{
    /// <summary>For the message of a failed test: the status, and what was written last.</summary>
    public string Summary => $"vmm ended with status {ExitCode}\n{VmmProcess.Show(Output, Errors)}";
}

/// <summary>A running vmm, fed and watched through pipes. Each wait has a deadline, after which the process is killed and the test
/// fails with what there was of its output.</summary>
internal sealed class VmmProcess : IDisposable
{
    /// <summary>Long enough for an emulated KVM host on a busy machine; only a failing test waits for so long.</summary>
    public static readonly TimeSpan Deadline = TimeSpan.FromSeconds(180);

    private const int ShownCharacters = 8192;

    private readonly Process _process;
    private readonly OutputCapture _output;
    private readonly OutputCapture _errors;

    private VmmProcess(Process process, bool readOutput)
    {
        _process = process;
        _output = new OutputCapture(buffer => process.StandardOutput.BaseStream.Read(buffer), readOutput);
        _errors = new OutputCapture(buffer => process.StandardError.BaseStream.Read(buffer), start: true);
    }

    /// <summary>Starts vmm.</summary>
    /// <param name="arguments">Its command line.</param>
    /// <param name="temporary">Its directory for temporary files.</param>
    /// <param name="readOutput">Whether its output is read at once, or only after <see cref="StartReading"/>.</param>
    /// <param name="directory">Its working directory; that of the tests by default.</param>
    public static VmmProcess Start(IReadOnlyList<string> arguments, string temporary, bool readOutput = true, string directory = "")
    {
        var start = new ProcessStartInfo(Command[0], [.. Command.Skip(1), .. arguments])
        {
            WorkingDirectory = directory,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        string[] mark = Mark.Split('=');
        start.Environment[mark[0]] = mark[1];
        start.Environment["TMPDIR"] = temporary;
        return new VmmProcess(Process.Start(start)!, readOutput);
    }

    /// <summary>The command that runs vmm: the binary that VMM_BINARY names, else the assembly beside the tests.</summary>
    public static IReadOnlyList<string> Command => IsNative
        ? [Path.GetFullPath(Binary!)]
        : ["dotnet", Path.Combine(TestContext.CurrentContext.TestDirectory, "vmm.dll")];

    /// <summary>Whether that is the binary.</summary>
    public static bool IsNative => !string.IsNullOrEmpty(Binary);

    private static string? Binary => Environment.GetEnvironmentVariable("VMM_BINARY");

    /// <summary>NAME=VALUE in the environment of every vmm that is started here, and of whatever it would start.</summary>
    public static string Mark { get; } = $"VMM_TEST_RUN={Guid.NewGuid():N}";

    /// <summary>The process's id.</summary>
    public int Id => _process.Id;

    /// <summary>What it wrote to standard output so far.</summary>
    public string Output => _output.Text;

    /// <summary>What it wrote to standard error so far.</summary>
    public string Errors => _errors.Text;

    /// <summary>Whether the pipe for its output, which nobody reads yet, takes no more.</summary>
    public bool IsOutputFull
    {
        get
        {
            SafePipeHandle ours = ((AnonymousPipeClientStream)_process.StandardOutput.BaseStream).SafePipeHandle;
            using FileDescriptor theirs = FileDescriptor.Open($"/proc/self/fd/{ours.DangerousGetHandle()}", OpenMode.WriteNonBlocking);
            return Poll.Wait([new PollEntry(theirs, PollEvents.Writable)], 0) == 0;
        }
    }

    /// <summary>Sends bytes to its standard input.</summary>
    public void Send(ReadOnlySpan<byte> bytes)
    {
        _process.StandardInput.BaseStream.Write(bytes);
        _process.StandardInput.BaseStream.Flush();
    }

    /// <summary>Closes its standard input.</summary>
    public void EndInput() => _process.StandardInput.Close();

    /// <summary>Begins to read its output, if that was not done at once.</summary>
    public void StartReading() => _output.Start();

    /// <summary>Closes our side of its standard output instead of reading it: writing to it is an error from now on.</summary>
    public void CloseOutput()
    {
        _process.StandardOutput.Close();
        _output.Start();
    }

    /// <summary>Waits until <paramref name="text"/> has been in its output <paramref name="times"/> times.</summary>
    public void WaitForOutput(string text, int times = 1, TimeSpan? deadline = null)
    {
        if (!_output.WaitFor(text, times, deadline ?? Deadline))
            throw Failed($"\"{text}\" was not written {times} times");
    }

    /// <summary>The same for its standard error.</summary>
    public void WaitForErrors(string text)
    {
        if (!_errors.WaitFor(text, 1, Deadline))
            throw Failed($"\"{text}\" was not written to standard error");
    }

    /// <summary>Sends it a signal.</summary>
    public void Signal(int signal) => Assert.That(LibC.kill(_process.Id, signal), Is.Zero, "kill");

    /// <summary>Whether it ends within <paramref name="time"/>.</summary>
    public bool EndsWithin(TimeSpan time) => _process.WaitForExit(time);

    /// <summary>Waits for its end.</summary>
    public VmmResult WaitForEnd(TimeSpan? deadline = null)
    {
        if (!_process.WaitForExit(deadline ?? Deadline))
            throw Failed("vmm did not end");
        if (!_output.WaitForEnd(Deadline) || !_errors.WaitForEnd(Deadline))
            throw Failed("vmm ended, but somebody still holds its output open");
        return new VmmResult(_process.ExitCode, _output.Text, _errors.Text);
    }

    /// <summary>Kills it if it still runs.</summary>
    public void Dispose()
    {
        _process.KillAndWait("vmm, which was killed,");
        _process.Dispose();
    }

    /// <summary>The ends of what was written, for the message of a failed test.</summary>
    public static string Show(string output, string errors) => $"-- standard output --\n{Tail(output)}\n-- standard error --\n{Tail(errors)}";

    private static string Tail(string text) => text.Length <= ShownCharacters ? text : $"[...]{text[^ShownCharacters..]}";

    private AssertionException Failed(string what)
    {
        string state = _process.HasExited ? $"it ended with status {_process.ExitCode}" : "it still runs";
        return new AssertionException($"{what}; {state}\n{HangReport.OfAllStarted()}{Show(_output.Text, _errors.Text)}");
    }
}
