using NUnit.Framework;

namespace Vmm.Tests.Integration;

/// <summary>A test that runs the vmm executable. What still runs when it ends is killed.</summary>
[NonParallelizable]
public abstract class VmmTest
{
    private readonly List<IDisposable> _started = [];

    [SetUp]
    public void CreateDirectories()
    {
        Scratch = Directory.CreateTempSubdirectory("vmm-test-").FullName;
        Temporary = Directory.CreateDirectory(Path.Combine(Scratch, "tmp")).FullName;
    }

    [TearDown]
    public void StopWhatIsLeft()
    {
        foreach (IDisposable process in _started)
            process.Dispose();
        _started.Clear();
        Directory.Delete(Scratch, recursive: true);
    }

    /// <summary>A directory of the running test's own.</summary>
    private protected string Scratch { get; private set; } = "";

    /// <summary>The directory that vmm has for temporary files, in <see cref="Scratch"/>.</summary>
    private protected string Temporary { get; private set; } = "";

    /// <summary>Starts vmm.</summary>
    private protected VmmProcess StartVmm(params string[] arguments) => Keep(VmmProcess.Start(arguments, Temporary));

    /// <summary>Has <paramref name="process"/> disposed of when the test ends.</summary>
    private protected T Keep<T>(T process)
        where T : IDisposable
    {
        _started.Add(process);
        return process;
    }
}
