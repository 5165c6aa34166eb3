using System.Diagnostics;
using System.Globalization;
using NUnit.Framework;
using Vmm.Tests.Integration.Linux;

namespace Vmm.Tests.Integration.Backends;

/// <summary>A system call, and its arguments: numbers; <c>@text</c> for the address of a text; <c>%hex</c> for the address of bytes;
/// <c>=N</c> for the result of the Nth call before in the same list, counted from 0.</summary>
/// <param name="Name">Its name in the kernel's headers, without SYS_.</param>
/// <param name="Arguments">The arguments.</param>
public sealed record InjectedCall(string Name, params string[] Arguments)
{
    public override string ToString() => $"{Name}({string.Join(", ", Arguments)})";
}

/// <summary>Makes a thread of another process do system calls, as a break-in would: firmware/guest/inject.c, by ptrace(2).</summary>
internal static class SystemCallInjector
{
    private static readonly Lazy<string> s_program = new(Make);

    /// <summary>Its file, made once in a test run; in the emulated KVM host, where there may be no compiler, that of the machine outside.</summary>
    public static string Build() => Payloads.WhyMissing() is string missing ? throw new IgnoreException(missing) : s_program.Value;

    /// <summary>What a call gives; null if it ends the process.</summary>
    public static long? Call(string program, int thread, string name, params string[] arguments) =>
        Calls(program, thread, [new InjectedCall(name, arguments)])[0];

    /// <summary>What calls give, one after the other: null for one that ends the process, and for all behind it;
    /// <see cref="long.MinValue"/> for one that the headers here do not know.</summary>
    public static long?[] Calls(string program, int thread, IReadOnlyList<InjectedCall> calls)
    {
        string input = string.Concat(calls.Select(call => $"{string.Join('\t', [call.Name, .. call.Arguments])}\n"));
        (int status, string output) = Run(program, input, $"{thread}");
        if (output.Contains("attach: Operation not permitted", StringComparison.Ordinal))
            Assert.Ignore("this user may not trace processes: run as root");
        Assert.That(status, Is.Zero, output);
        long?[] results = new long?[calls.Count];
        string[] lines = output.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        for (int i = 0; i < lines.Length && lines[i] != "killed"; i++)
            results[i] = lines[i] == "unknown" ? long.MinValue : long.Parse(lines[i], CultureInfo.InvariantCulture);
        return results;
    }

    private static string Make()
    {
        string program = LinuxGuest.Artifact("guest", "inject");
        if (LinuxHost.IsEmulated)
            return program;
        (int status, string output) = Run(RepositoryRoot.Combine("firmware", "guest", "build"), "", "inject", program);
        return status == 0 ? program : throw new InvalidOperationException(output);
    }

    private static (int Status, string Output) Run(string program, string input, params string[] arguments)
    {
        using Process process = Process.Start(new ProcessStartInfo(program, arguments)
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        })!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        Task<string> output = process.StandardOutput.ReadToEndAsync();
        process.StandardInput.Write(input);
        process.StandardInput.Close();
        Assert.That(process.WaitForExit(VmmProcess.Deadline), $"{program} did not end");
        return (process.ExitCode, output.Result + errors.Result);
    }
}
