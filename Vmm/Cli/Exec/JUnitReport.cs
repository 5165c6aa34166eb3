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

    /// <summary>Writes the results of <paramref name="runs"/>.</summary>
    /// <exception cref="VmmException">That is not possible.</exception>
    public void Write(IReadOnlyList<MatrixRun> runs)
    {
        string text = Text([.. runs.Select(run => (run.Variant.Name, run.Status ?? ExitCode.ExecFailure, run.Time, run.Output))]);
        try
        {
            _file.WriteAll(Encoding.UTF8.GetBytes(text), "write");
        }
        catch (ErrnoException e)
        {
            throw Error(e);
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _file.Dispose();

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

    private VmmException Error(ErrnoException e) => new($"--report {_path}: {e.Message}", e);

    // XML 1.0 has no way to write most control characters.
    private static string Escape(string text) => SecurityElement.Escape(
        string.Concat(text.Select(character => (char.IsControl(character) && character is not ('\n' or '\t')) || character is '\uFFFE' or '\uFFFF' || char.IsSurrogate(character) ? '?' : character)))!;
}
