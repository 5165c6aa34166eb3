using NUnit.Framework;
using Tmds.Linux;
using Vmm.Tests.Integration.Linux.Devices;

namespace Vmm.Tests.Integration;

/// <summary>A guest that touches a part of a mapped file (<c>--fs …,dax=on</c>) that is not there. KVM tells the VMM (EFAULT) where it does not wait by itself:
/// the guest, firmware/payloads/dax.c, has its interrupts off.</summary>
public class MappedFileTests : KvmTest
{
    private const int PageSize = 4096;
    private const string Waits = "vCPU 0 waits: the guest touches a part of a file";

    private static readonly TimeSpan s_while = TimeSpan.FromSeconds(1);

    private string _file = "";

    [SetUp]
    public void MakeFile()
    {
        _file = Path.Combine(Directory.CreateDirectory(Path.Combine(Scratch, "share")).FullName, "file");
        File.WriteAllBytes(_file, [.. new byte[PageSize], .. "a"u8, .. new byte[PageSize - 1]]);
    }

    [Test]
    public void Read_OfWhatTheHostHasCutOff_GoesOnWhenTheFileIsLongAgain()
    {
        VmmProcess process = StartMapped();
        process.Send("r"u8);
        process.WaitForOutput("read 0x61\n");
        using (FileStream file = File.OpenWrite(_file))
        {
            file.SetLength(0);
            process.Send("r"u8);
            process.WaitForErrors(Waits);
            Thread.Sleep(s_while);
            Assert.That(process.Output, Is.EqualTo("mapped\nread 0x61\n"), "the guest has read what is not there");
            file.SetLength(2 * PageSize);
        }
        process.WaitForOutput("read 0x0\n");
        process.Send("wq"u8);
        VmmResult result = process.WaitForEnd();

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(result.Output, Does.EndWith("read 0x0\nwritten\n"));
        Assert.That(result.Errors.Split(Waits), Has.Length.EqualTo(2), "told once");
        Assert.That(File.ReadAllBytes(_file)[PageSize], Is.EqualTo((byte)'w'));
    }

    // Nothing that the host does makes these accesses good: the guest waits until it is ended.
    [TestCase("r", "cut off", "")]
    [TestCase("w", "for reading only", ",readonly=on")]
    [TestCase("n", "no file", "")]
    public void Access_ToWhatIsNotThere_WaitsUntilTheGuestIsEnded(string access, string why, string keys)
    {
        VmmProcess process = StartMapped(keys);
        if (why == "cut off")
            File.WriteAllBytes(_file, []);
        process.Send([(byte)access[0]]);
        process.WaitForErrors(Waits);
        Assert.That(process.EndsWithin(s_while), Is.False);
        process.Signal(LibC.SIGTERM);
        VmmResult result = process.WaitForEnd();

        Assert.That(result.ExitCode, Is.EqualTo(128 + LibC.SIGTERM), result.Summary);
        Assert.That(result.Output, Is.EqualTo("mapped\n"), "nothing was read or written");
    }

    // What is mapped stays mapped, and the guest does not notice.
    [Test]
    public void Read_AfterTheDaemonWasKilled_IsOfTheSameFile()
    {
        VmmProcess process = StartMapped();
        process.Send("r"u8);
        process.WaitForOutput("read 0x61\n");
        int daemon = ProcFs.Daemons(process.Id).Single();
        HostCommand.Run("kill", "-KILL", $"{daemon}");
        process.WaitForErrors("vmm backend fs ended with signal 9");
        process.Send("w"u8);
        process.WaitForOutput("written\n");
        Assert.That(File.ReadAllBytes(_file)[PageSize], Is.EqualTo((byte)'w'), "with no daemon, or the next one");
        process.WaitForErrors("the back-end is back");
        using (FileStream file = File.OpenWrite(_file))
        {
            file.Position = PageSize;
            file.WriteByte((byte)'b');
        }
        process.Send("roq"u8);
        VmmResult result = process.WaitForEnd();
        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(result.Output, Does.Contain("written\nread 0x62\nopened ").And.Not.Contain("opened 0x0 "), "what the host wrote; and the next daemon knows the file");
    }

    // The daemon's own warning, while guest and daemon run: it comes once, and as a warning of the VMM's.
    [Test]
    public void Open_AsManyFilesAsTheDaemonMayHave_IsTheVmmsWarning()
    {
        VmmProcess process = StartMapped();
        int daemon = ProcFs.Daemons(process.Id).Single();
        HostCommand.Run("prlimit", "--pid", $"{daemon}", "--nofile=300:300");
        process.Send("o"u8);
        process.WaitForOutput(" times, then error 0x18\n");     // EMFILE
        const string warning = "vmm: warn: Vmm.Devices.VhostUser: --fs tag=work: vmm backend fs: ";
        process.WaitForErrors(warning);
        process.Send("rq"u8);
        VmmResult result = process.WaitForEnd();
        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(result.Output, Does.EndWith("read 0x61\n"), "the guest goes on");
        string[] lines = result.Errors.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.That(lines, Has.Length.EqualTo(1), result.Errors);
        Assert.That(lines[0], Does.StartWith(warning).And.Contain("the guest has as many files open as this process may have descriptors"));
    }

    // The same is not written by a VMM that tells of errors only.
    [Test]
    public void Open_AsManyFilesAsTheDaemonMayHave_IsNotToldBelowTheVmmsLevel()
    {
        VmmProcess process = StartMapped("", "--log-level", "error");
        HostCommand.Run("prlimit", "--pid", $"{ProcFs.Daemons(process.Id).Single()}", "--nofile=300:300");
        process.Send("oq"u8);
        VmmResult result = process.WaitForEnd();
        Assert.That(result.Output, Does.Contain(" times, then error 0x18\n"));
        Assert.That(result.Errors, Is.Empty);
    }

    private VmmProcess StartMapped(string keys = "", params string[] options)
    {
        VmmProcess process = Start("dax", ["--memory", "64M", "--fs", $"tag=work,source={Path.GetDirectoryName(_file)},dax=on{keys}", .. options]);
        process.WaitForOutput("mapped\n");
        return process;
    }
}
