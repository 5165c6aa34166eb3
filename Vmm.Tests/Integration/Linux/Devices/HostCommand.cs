using System.Diagnostics;
using NUnit.Framework;

namespace Vmm.Tests.Integration.Linux.Devices;

/// <summary>Programs of the host that a test needs: ip, modprobe, ping, …</summary>
internal static class HostCommand
{
    /// <summary>Runs a program, which must succeed.</summary>
    /// <returns>What it wrote.</returns>
    public static string Run(string program, params string[] arguments)
    {
        (int status, string output) = TryRun(program, arguments);
        Assert.That(status, Is.Zero, $"{program} {string.Join(' ', arguments)}\n{output}");
        return output;
    }

    /// <summary>Runs a program.</summary>
    /// <returns>Its exit status, and what it wrote to standard output and standard error.</returns>
    public static (int Status, string Output) TryRun(string program, params string[] arguments)
    {
        using Process process = Start(program, arguments);
        Task<string> output = process.StandardOutput.ReadToEndAsync();
        Task<string> errors = process.StandardError.ReadToEndAsync();
        if (!process.WaitForExit(VmmProcess.Deadline))
        {
            string where = HangReport.Of(process.Id);
            process.Kill();
            throw new AssertionException($"{program} {string.Join(' ', arguments)} did not end\n{where}");
        }
        return (process.ExitCode, output.Result + errors.Result);
    }

    /// <summary>Starts a program whose standard streams are pipes.</summary>
    public static Process Start(string program, params string[] arguments) => Process.Start(new ProcessStartInfo(program, arguments)
    {
        RedirectStandardInput = true,
        RedirectStandardOutput = true,
        RedirectStandardError = true,
    })!;
}
