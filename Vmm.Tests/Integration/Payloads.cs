using System.Diagnostics;
using Vmm.Tests.Integration.Linux;

namespace Vmm.Tests.Integration;

/// <summary>The guest programs of firmware/payloads, built once in a test run.</summary>
internal static class Payloads
{
    private static readonly TimeSpan s_buildTime = TimeSpan.FromMinutes(2);
    private static readonly Lazy<string> s_directory = new(Build);

    /// <summary>The ELF file of payload <paramref name="name"/>.</summary>
    public static string Path(string name)
    {
        string path = System.IO.Path.Combine(s_directory.Value, name + ".elf");
        return File.Exists(path) ? path : throw new InvalidOperationException($"there is no payload {name}.S or {name}.c in firmware/payloads");
    }

    /// <summary>Why there are no payloads on this machine, or null.</summary>
    public static string? WhyMissing()
    {
        if (LinuxHost.IsEmulated)
            return null;
        foreach (string tool in new[] { "as", "ld", "gcc" })
        {
            if (!IsInPath(tool))
                return $"the payloads need {tool}: apt-get install binutils gcc";
        }
        return null;
    }

    private static bool IsInPath(string tool) => (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':')
        .Any(directory => directory != "" && File.Exists(System.IO.Path.Combine(directory, tool)));

    private static string Build()
    {
        string output = LinuxGuest.Artifact("payloads");
        if (LinuxHost.IsEmulated)
            return output;      // they were built outside, where the compiler is
        var start = new ProcessStartInfo(RepositoryRoot.Combine("firmware", "payloads", "build"), [output]) { RedirectStandardError = true };
        using Process build = Process.Start(start)!;
        Task<string> errors = build.StandardError.ReadToEndAsync();
        if (!build.WaitForExit(s_buildTime))
        {
            build.Kill();
            throw new TimeoutException("firmware/payloads/build did not end");
        }
        return build.ExitCode == 0 ? output : throw new InvalidOperationException($"firmware/payloads/build: {errors.Result}");
    }
}
