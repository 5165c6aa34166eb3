using System.Diagnostics;
using NUnit.Framework;

namespace Vmm.Tests.Integration;

/// <summary>The native vmm is one file: it loads what ldd names, and looks for nothing else.</summary>
public class SingleFileTests : KvmTest
{
    private const int MostFailedOpens = 2;

    [OneTimeSetUp]
    public void CheckBinary()
    {
        if (!VmmProcess.IsNative)
            Assert.Ignore("only the native binary is one file: run scripts/publish-vmm and set VMM_BINARY");
    }

    [Test]
    public void Run_ChrootWithWhatLddNames_RunsAGuest()
    {
        if (!Environment.IsPrivilegedProcess)
            Assert.Ignore("chroot needs root");
        string root = Directory.CreateDirectory(Path.Combine(Scratch, "root")).FullName;
        (_, string libraries) = RunTool("ldd", VmmProcess.Command[0]);
        foreach (string library in libraries.Split([' ', '\t', '\n'], StringSplitOptions.RemoveEmptyEntries).Where(word => word[0] == '/'))
            CopyInto(root, library, library);
        CopyInto(root, VmmProcess.Command[0], "/vmm");
        CopyInto(root, Payloads.Path("hello"), "/hello");
        Directory.CreateDirectory(Path.Combine(root, "dev"));
        (int status, string output) = RunTool("mknod", "-m", "600", Path.Combine(root, "dev/kvm"), "c", "10", "232");
        if (status != 0)
            Assert.Ignore($"no device node can be made here: {output}");

        (status, output) = RunTool("chroot", root, "/vmm", "run", "--kernel", "/hello");

        Assert.That(status, Is.Zero, output);
        Assert.That(output, Is.EqualTo(Run("hello").Output));
    }

    [Test]
    public void Run_LibraryPlantedBesideIt_IsNotLoaded()
    {
        string program = Path.Combine(Scratch, "vmm"), witness = Path.Combine(Scratch, "loaded"), source = Path.Combine(Scratch, "planted.c");
        File.Copy(VmmProcess.Command[0], program);
        File.WriteAllText(source, $$"""
            #include <fcntl.h>
            __attribute__((constructor)) static void loaded(void) { open("{{witness}}", O_CREAT | O_WRONLY, 0600); }
            """);
        foreach (string library in new[] { "libc.so.6", "libc.so", "libpthread.so.0", "librt.so.1", "libdl.so.2", "libSystem.Native.so" })
        {
            (int compiled, string errors) = RunTool("gcc", "-shared", "-fPIC", "-o", Path.Combine(Scratch, library), source);
            Assert.That(compiled, Is.Zero, errors);
        }

        (int status, string output) = RunTool(program, "run", "--kernel", Payloads.Path("hello"));

        Assert.That(status, Is.Zero, output);
        Assert.That(File.Exists(witness), Is.False, "a library from the binary's directory was loaded");
    }

    [Test]
    public void Run_Payload_LooksForNoFilesThatAreNotThere()
    {
        string trace = Path.Combine(Scratch, "trace");
        (int status, string output) = RunTool(
            "strace", "-f", "-e", "trace=open,openat", "-o", trace, VmmProcess.Command[0], "run", "--kernel", Payloads.Path("hello"));

        string[] failed = [.. File.ReadLines(trace).Where(line => line.Contains("ENOENT", StringComparison.Ordinal))];
        Assert.That(status, Is.Zero, output);
        Assert.That(File.ReadAllText(trace), Does.Contain("/dev/kvm"), "the trace has the opens");
        Assert.That(failed, Has.Length.LessThanOrEqualTo(MostFailedOpens), string.Join('\n', failed));
    }

    private static void CopyInto(string root, string file, string path)
    {
        string target = root + path;
        Directory.CreateDirectory(Path.GetDirectoryName(target)!);
        File.Copy(File.ResolveLinkTarget(file, returnFinalTarget: true)?.FullName ?? file, target, overwrite: true);
    }

    private static (int Status, string Output) RunTool(string tool, params string[] arguments)
    {
        using Process process = Process.Start(new ProcessStartInfo("/bin/sh", ["-c", "exec \"$0\" \"$@\" < /dev/null 2>&1", tool, .. arguments])
        {
            RedirectStandardOutput = true,
        })!;
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, output);
    }
}
