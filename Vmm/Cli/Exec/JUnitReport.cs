using System.Globalization;
using System.Security;
using System.Text;
using Vmm.Vhost.Native;

namespace Vmm.Cli.Exec;

/// <summary>The results of <c>--matrix</c> as JUnit XML, which continuous integration reads. The file is opened, and empty, before the first guest runs.</summary>
internal sealed class JUnitReport : IDisposable
{
    private readonly string _path;
    private readonly FileDescriptor _file;

    /// <summary>Opens <paramref name="path"/>.</summary>
    /// <exception cref="VmmException">It cannot be written.</exception>
    public JUnitReport(string path)
    {
        _path = path;
        try
        {
            _file = FileDescriptor.Open(path, OpenMode.CreateTruncate);
        }
        catch (ErrnoException e)
        {
            throw Error(e);
        }
    }

    /// <summary>Writes the results.</summary>
    /// <param name="runs">What has run. One without a status was killed because this process was told to end.</param>
    /// <param name="skipped">What has not run because of that.</param>
    /// <exception cref="VmmException">That is not possible.</exception>
    public void Write(IReadOnlyList<MatrixRun> runs, IEnumerable<MatrixVariant> skipped)
    {
        string text = Text([.. runs.Select(run => (run.Variant.Name, run.Status ?? ExitCode.ExecFailure, run.Time, run.Output))], [.. skipped.Select(variant => variant.Name)]);
        try
        {
            _file.WriteAll(Encoding.UTF8.GetBytes(text), "it");
        }
        catch (ErrnoException e)
        {
            throw Error(e);
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _file.Dispose();

    /// <summary>The text of the file.</summary>
    internal static string Text(IReadOnlyList<(string Name, int Status, TimeSpan Time, string Output)> runs, IReadOnlyList<string> skipped)
    {
        var text = new StringBuilder("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        text.Append(CultureInfo.InvariantCulture, $"<testsuite name=\"vmm exec\" tests=\"{runs.Count + skipped.Count}\" failures=\"{runs.Count(run => run.Status != 0)}\" errors=\"0\" skipped=\"{skipped.Count}\" ");
        text.Append(CultureInfo.InvariantCulture, $"time=\"{runs.Sum(run => run.Time.TotalSeconds):F3}\">\n");
        foreach ((string name, int status, TimeSpan time, string output) in runs)
        {
            text.Append(CultureInfo.InvariantCulture, $"  <testcase classname=\"vmm exec\" name=\"{Escape(name)}\" time=\"{time.TotalSeconds:F3}\">\n");
            if (status != 0)
                text.Append(CultureInfo.InvariantCulture, $"    <failure message=\"status {status}\"/>\n");
            text.Append(CultureInfo.InvariantCulture, $"    <system-out>{Escape(output)}</system-out>\n  </testcase>\n");
        }
        foreach (string name in skipped)
            text.Append(CultureInfo.InvariantCulture, $"  <testcase classname=\"vmm exec\" name=\"{Escape(name)}\">\n    <skipped/>\n  </testcase>\n");
        return text.Append("</testsuite>\n").ToString();
    }

    private VmmException Error(ErrnoException e) => new($"--report {_path}: {e.Message}", e);

    // XML 1.0 has no way to write most control characters. Half a pair of surrogates becomes U+FFFD.
    private static string Escape(string text)
    {
        var valid = new StringBuilder(text.Length);
        foreach (Rune rune in text.EnumerateRunes())
            valid.Append((Rune.IsControl(rune) && rune.Value is not ('\n' or '\t')) || rune.Value is 0xFFFE or 0xFFFF ? "?" : rune.ToString());
        return SecurityElement.Escape(valid.ToString())!;
    }
}
