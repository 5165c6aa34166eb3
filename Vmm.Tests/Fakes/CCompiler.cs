using System.Diagnostics;
using NUnit.Framework;

namespace Vmm.Tests.Fakes;

/// <summary>The machine's C compiler, for assertions about C headers.</summary>
internal static class CCompiler
{
    /// <summary>Checks that <paramref name="source"/> compiles; the test is skipped where there is no compiler.</summary>
    public static void Check(string source)
    {
        Process compiler;
        try
        {
            compiler = Process.Start(new ProcessStartInfo("gcc", ["-std=gnu11", "-fsyntax-only", "-x", "c", "-"])
            {
                RedirectStandardInput = true,
                RedirectStandardError = true,
            })!;
        }
        catch (System.ComponentModel.Win32Exception)
        {
            Assert.Ignore("no C compiler: apt-get install gcc libc6-dev");
            return;
        }
        using (compiler)
        {
            compiler.StandardInput.Write(source);
            compiler.StandardInput.Close();
            string errors = compiler.StandardError.ReadToEnd();
            compiler.WaitForExit();
            Assert.That(compiler.ExitCode, Is.Zero, errors);
        }
    }
}
