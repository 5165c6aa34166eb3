using System.Diagnostics;
using System.Globalization;
using NLog;
using NLog.Config;
using NLog.Targets;
using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost;

namespace Vmm.Tests.Fuzz;

/// <summary>Runs an input for each number from VMM_FUZZ_FIRST on, VMM_FUZZ_RUNS of them: every one is made from VMM_FUZZ_SEED and its
/// number alone. What throws, logs an error, takes too long, or leaves descriptors or mappings behind is a failure that names its number.</summary>
internal static class FuzzRun
{
    private static readonly TimeSpan s_hang = TimeSpan.FromSeconds(60);

    private static long s_current;
    private static long s_began;
    private static string? s_error;

    public static void All(int defaultRuns, Action<Random> one)
    {
        long seed = Setting("VMM_FUZZ_SEED", 1), first = Setting("VMM_FUZZ_FIRST", 0), runs = Setting("VMM_FUZZ_RUNS", defaultRuns);
        string test = TestContext.CurrentContext.Test.Name;
        s_error = null;
        LogSetup.Complete();
        LoggingConfiguration? before = LogManager.Configuration;
        ListenToErrors();
        using var watchdog = new Timer(_ => Watch(test, seed), null, s_hang, TimeSpan.FromSeconds(1));
        Execute(one, seed, first, Math.Min(runs, 50));   // what is made once is there from here on
        int descriptors = OpenDescriptors.Count, mappings = Mappings();
        long start = Stopwatch.GetTimestamp();
        try
        {
            Execute(one, seed, first, runs);
        }
        finally
        {
            LogManager.Configuration = before;
            Volatile.Write(ref s_began, 0);
        }
        TestContext.Out.WriteLine($"{test}: {runs} runs in {Stopwatch.GetElapsedTime(start).TotalSeconds:0.0} s, from {first} on with seed {seed}");
        OpenDescriptors.AssertBackTo(descriptors);
        // Threads of the pool and the heap's pieces come and go; what leaks by run would be many more.
        Assert.That(Mappings(), Is.LessThan(mappings + 200 + runs / 10), "mappings are left behind");
    }

    private static void Execute(Action<Random> one, long seed, long first, long runs)
    {
        for (long i = first; i < first + runs; i++)
        {
            Volatile.Write(ref s_current, i);
            Volatile.Write(ref s_began, Stopwatch.GetTimestamp());
            try
            {
                one(new Random(HashCode(seed, i)));
            }
            catch (Exception e) when (e is not AssertionException)
            {
                s_error ??= e.ToString();
            }
            if (Volatile.Read(ref s_error) is string error)
                Assert.Fail($"VMM_FUZZ_SEED={seed} VMM_FUZZ_FIRST={i} VMM_FUZZ_RUNS=1: {error}");
        }
    }

    // Not of System.HashCode, which is another in every process.
    private static int HashCode(long seed, long number)
    {
        ulong mixed = (ulong)seed * 0x9E3779B97F4A7C15 + (ulong)number;
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9;
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB;
        return (int)(mixed ^ mixed >> 31);
    }

    // A thread that hangs cannot be ended: the process has to.
    private static void Watch(string test, long seed)
    {
        if (Volatile.Read(ref s_began) is long began and not 0 && Stopwatch.GetElapsedTime(began) > s_hang)
            Environment.FailFast($"{test}: VMM_FUZZ_SEED={seed} VMM_FUZZ_FIRST={s_current} VMM_FUZZ_RUNS=1 hangs");
    }

    // What is caught all the same, so that a process goes on, is a mistake of ours here.
    private static void ListenToErrors()
    {
        var target = new MethodCallTarget("errors", (line, _) => s_error ??= $"{line.FormattedMessage} {line.Exception}");
        LogManager.Setup().LoadConfiguration(builder => builder.ForLogger("Vmm.*").FilterMinLevel(LogLevel.Error).WriteTo(target));
    }

    private static int Mappings() => File.ReadLines("/proc/self/maps").Count();

    private static long Setting(string name, long otherwise) =>
        Environment.GetEnvironmentVariable(name) is string text ? long.Parse(text, CultureInfo.InvariantCulture) : otherwise;
}
