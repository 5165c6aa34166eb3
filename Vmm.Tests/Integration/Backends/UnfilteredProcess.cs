using System.Diagnostics;
using System.Globalization;
using NUnit.Framework;

namespace Vmm.Tests.Integration.Backends;

/// <summary>A program whose seccomp(2) does nothing, so that a test sees what else confines it. It ends with this object.</summary>
internal sealed class UnfilteredProcess : IDisposable
{
    private readonly Process _starter;

    /// <summary>Starts <paramref name="command"/>, and waits until it has called seccomp(2).</summary>
    /// <param name="injector">What <see cref="SystemCallInjector.Build"/> gave.</param>
    /// <param name="command">The program and its arguments.</param>
    public UnfilteredProcess(string injector, IReadOnlyList<string> command)
    {
        _starter = Process.Start(new ProcessStartInfo(injector, ["start", .. command]) { RedirectStandardOutput = true })!;
        string? line = _starter.StandardOutput.ReadLine();
        Assert.That(line, Is.Not.Null, "the program ended before it confined itself");
        Id = int.Parse(line!, CultureInfo.InvariantCulture);
    }

    /// <summary>The process's id.</summary>
    public int Id { get; }

    /// <inheritdoc/>
    public void Dispose()
    {
        using (Process program = Process.GetProcessById(Id))
            program.Kill();
        _starter.WaitForExit();
        _starter.Dispose();
    }
}
