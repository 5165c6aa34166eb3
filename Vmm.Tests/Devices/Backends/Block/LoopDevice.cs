using System.ComponentModel;
using System.Diagnostics;

namespace Vmm.Tests.Devices.Backends.Block;

/// <summary>A block device of the host's that is a file.</summary>
internal sealed class LoopDevice : IDisposable
{
    private LoopDevice(string path) => Path = path;

    public string Path { get; }

    /// <summary>Makes one of <paramref name="file"/>.</summary>
    /// <returns>Why there is none; null if there is.</returns>
    public static string? TryAttach(string file, out LoopDevice? device, params string[] options)
    {
        (int status, string output) = Run(["--find", "--show", .. options, file]);
        device = status == 0 ? new LoopDevice(output.Trim()) : null;
        return status == 0 ? null : output;
    }

    /// <summary>Has it see that its file has another size.</summary>
    public void UpdateSize() => Run(["--set-capacity", Path]);

    public void Dispose() => Run(["--detach", Path]);

    private static (int Status, string Output) Run(string[] arguments)
    {
        try
        {
            using Process process = Process.Start(new ProcessStartInfo("losetup", arguments) { RedirectStandardOutput = true, RedirectStandardError = true })!;
            string output = process.StandardOutput.ReadToEnd() + process.StandardError.ReadToEnd();
            process.WaitForExit();
            return (process.ExitCode, output);
        }
        catch (Win32Exception e)
        {
            return (-1, e.Message);
        }
    }
}
