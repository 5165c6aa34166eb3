using System.Globalization;
using System.Security;
using System.Text;

namespace Vmm.Cli.Exec;

/// <summary>The results of <c>--matrix</c> as JUnit XML, which continuous integration reads.</summary>
internal static class JUnitReport
{
    /// <summary>Writes them to <paramref name="path"/>.</summary>
    /// <exception cref="VmmException">It cannot be written.</exception>
    public static void Write(string path, IReadOnlyList<MatrixRun> runs)
    {
        try
        {
            File.WriteAllText(path, Text([.. runs.Select(run => (run.Variant.Name, run.Status ?? ExitCode.ExecFailure, run.Time, run.Output))]));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new VmmException($"--report {path}: {e.Message}", e);
        }
    }

    /// <summary>The text of the file.</summary>
    internal static string Text(IReadOnlyList<(string Name, int Status, TimeSpan Time, string Output)> runs)
    {
        var text = new StringBuilder("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        text.Append(CultureInfo.InvariantCulture, $"<testsuite name=\"vmm exec\" tests=\"{runs.Count}\" failures=\"{runs.Count(run => run.Status != 0)}\" errors=\"0\" ");
        text.Append(CultureInfo.InvariantCulture, $"time=\"{runs.Sum(run => run.Time.TotalSeconds):F3}\">\n");
        foreach ((string name, int status, TimeSpan time, string output) in runs)
        {
            text.Append(CultureInfo.InvariantCulture, $"  <testcase classname=\"vmm exec\" name=\"{Escape(name)}\" time=\"{time.TotalSeconds:F3}\">\n");
            if (status != 0)
                text.Append(CultureInfo.InvariantCulture, $"    <failure message=\"status {status}\"/>\n");
            text.Append(CultureInfo.InvariantCulture, $"    <system-out>{Escape(output)}</system-out>\n  </testcase>\n");
        }
        return text.Append("</testsuite>\n").ToString();
    }

    // XML 1.0 has no way to write most control characters.
    private static string Escape(string text) => SecurityElement.Escape(
        string.Concat(text.Select(character => (char.IsControl(character) && character is not ('\n' or '\t')) || character is '\uFFFE' or '\uFFFF' || char.IsSurrogate(character) ? '?' : character)))!;
}
