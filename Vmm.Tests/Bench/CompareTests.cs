using System.Diagnostics;
using NUnit.Framework;
using Vmm.Tests.Integration;

namespace Vmm.Tests.Bench;

/// <summary><c>./bench.sh compare</c> says what got worse from one result to another.</summary>
public class CompareTests
{
    private const string Old = """
        vmm, 256 MiB|first|ms|lower|100.00|1.0
        vmm, 256 MiB|gone|ms|lower|30.00|20.0
        vmm, 256 MiB|exits|-|lower|0|0
        vmm|rate|MB/s|higher|500.00|0.0

        """;

    private string _directory = "";

    [SetUp]
    public void CreateDirectory() => _directory = Directory.CreateTempSubdirectory("vmm-test-").FullName;

    [TearDown]
    public void DeleteDirectory() => Directory.Delete(_directory, recursive: true);

    [Test]
    public void Compare_TheSame_IsNotWorse()
    {
        (int status, string said) = Compare(Old, Old);

        Assert.That(status, Is.Zero, said);
        Assert.That(said, Is.EqualTo("0 worse, 0 better, 4 the same within 3 % or the spread, 0 new, 0 missing\n"));
    }

    [TestCase("lower|100.00", "lower|103.01", "first")]
    [TestCase("higher|500.00", "higher|484.00", "rate")]
    [TestCase("lower|0|", "lower|3|", "exits")]
    [TestCase("lower|30.00", "lower|36.10", "gone")]
    public void Compare_OneFigureIsWorse_NamesItAndFails(string from, string to, string figure)
    {
        (int status, string said) = Compare(Old, Old.Replace(from, to, StringComparison.Ordinal));

        Assert.That(status, Is.EqualTo(1), said);
        string[] lines = said.Split('\n');
        Assert.That(lines[0], Does.StartWith("WORSE ").And.Contain($" {figure} "));
        Assert.That(lines[1], Does.StartWith("1 worse, 0 better, 3 the same"));
    }

    [TestCase("lower|100.00", "lower|102.99")]  // within 3 %
    [TestCase("lower|30.00", "lower|35.90")]    // within the spread of its runs
    [TestCase("higher|500.00", "higher|486.00")]
    public void Compare_ChangesWithinTheNoise_AreNone(string from, string to)
    {
        (int status, string said) = Compare(Old, Old.Replace(from, to, StringComparison.Ordinal));

        Assert.That(status, Is.Zero, said);
        Assert.That(said, Does.StartWith("0 worse, 0 better, 4 the same"));
    }

    [TestCase("lower|100.00", "lower|90.00")]
    [TestCase("higher|500.00", "higher|600.00")]
    public void Compare_OneFigureIsBetter_SaysSo(string from, string to)
    {
        (int status, string said) = Compare(Old, Old.Replace(from, to, StringComparison.Ordinal));

        Assert.That(status, Is.Zero, said);
        Assert.That(said, Does.StartWith("better ").And.Contain("0 worse, 1 better"));
    }

    [Test]
    public void Compare_FigureIsGone_Fails()
    {
        (int status, string said) = Compare(Old, Old.Replace("vmm|rate", "vmm|speed", StringComparison.Ordinal));

        Assert.That(status, Is.EqualTo(1), said);
        Assert.That(said, Does.Contain("MISSING ").And.Contain("1 new, 1 missing"));
    }

    [Test]
    public void Compare_SeveralBenchmarks_KeepsRowsOfTheSameNameApart()
    {
        foreach (string side in new[] { "old", "new" })
        {
            Write(side, "blk", "vmm read|rate|MB/s|higher|500.00|0\n");
            Write(side, "fs", $"vmm read|rate|MB/s|higher|{(side == "old" ? 400 : 300)}.00|0\n");
        }

        (int status, string said) = Run("old", "new");

        Assert.That(status, Is.EqualTo(1), said);
        Assert.That(said, Does.StartWith("WORSE ").And.Contain("fs: vmm read").And.Contain("1 worse, 0 better, 1 the same"));
    }

    [TestCase("vmm|first|ms|lower|fast|0\n", "not a figure: vmm|first|ms|lower|fast|0")]
    [TestCase("", "no figures in")]
    public void Compare_WhatIsNoResult_IsRefused(string text, string expected)
    {
        (int status, string said) = Compare(Old, text);

        Assert.That(status, Is.EqualTo(2), said);
        Assert.That(said, Does.Contain(expected));
    }

    private (int Status, string Said) Compare(string old, string @new)
    {
        Write("old", "boot", old);
        Write("new", "boot", @new);
        return Run(Path.Combine("old", "boot"), Path.Combine("new", "boot", "figures"));
    }

    private void Write(string side, string benchmark, string text)
    {
        string directory = Path.Combine(_directory, side, benchmark);
        Directory.CreateDirectory(directory);
        File.WriteAllText(Path.Combine(directory, "figures"), text);
    }

    private (int Status, string Said) Run(string old, string @new)
    {
        var start = new ProcessStartInfo(RepositoryRoot.Combine("bench.sh"), ["compare", old, @new])
        {
            WorkingDirectory = _directory,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        using Process process = Process.Start(start)!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, output + errors.Result);
    }
}
