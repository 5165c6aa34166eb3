using NUnit.Framework;

namespace Vmm.Tests.Integration;

/// <summary>A test that runs the vmm executable. What still runs when it ends is killed, and what it made on the host is taken away.</summary>
[NonParallelizable]
public abstract class VmmTest
{
    private readonly List<IDisposable> _started = [];

    /// <summary>Whether to test all there is, however long it takes: VMM_TESTS=full.</summary>
    internal static bool IsFull => Environment.GetEnvironmentVariable("VMM_TESTS") == "full";

    [SetUp]
    public void CreateDirectories()
    {
        Scratch = Directory.CreateTempSubdirectory("vmm-test-").FullName;
        Temporary = Directory.CreateDirectory(Path.Combine(Scratch, "tmp")).FullName;
    }

    [TearDown]
    public void StopWhatIsLeft()
    {
        // A VMM ends before the device that it uses is taken away: the kernel may wait for it (vhost-vdpa does).
        List<Exception> failures = [];
        foreach (IDisposable item in Enumerable.Reverse(_started))
        {
            try
            {
                item.Dispose();
            }
            catch (Exception e)
            {
                failures.Add(e);
            }
        }
        _started.Clear();
        RemoveScratch();
        Assert.That(failures, Is.Empty);
    }

    // The spawner of a VMM that was killed removes its directories meanwhile.
    private void RemoveScratch()
    {
        long end = Environment.TickCount64 + 10_000;
        while (Directory.Exists(Scratch))
        {
            try
            {
                Directory.Delete(Scratch, recursive: true);
            }
            catch (IOException) when (Environment.TickCount64 < end)
            {
                Thread.Sleep(10);
            }
        }
    }

    /// <summary>A directory of the running test's own.</summary>
    private protected string Scratch { get; private set; } = "";

    /// <summary>The directory that vmm has for temporary files, in <see cref="Scratch"/>.</summary>
    private protected string Temporary { get; private set; } = "";

    /// <summary>Starts vmm.</summary>
    private protected VmmProcess StartVmm(params string[] arguments) => Keep(VmmProcess.Start(arguments, Temporary));

    /// <summary>Has <paramref name="item"/>, a process or something of the host, disposed of when the test ends. What was kept last is
    /// disposed of first. What goes wrong there does not hide what the test itself found, as the end of a using block would.</summary>
    private protected T Keep<T>(T item)
        where T : IDisposable
    {
        _started.Add(item);
        return item;
    }

    /// <summary>The path of a program, which may be given whole; the test is skipped where it is missing.</summary>
    private protected static string Require(string program, string package)
    {
        foreach (string directory in new[] { "/usr/bin", "/usr/sbin", "/bin", "/sbin" })
        {
            if (File.Exists(Path.Combine(directory, program)))
                return Path.Combine(directory, program);
        }
        Assert.Ignore($"{program} is missing: apt-get install {package}");
        return "";
    }
}
