using System.Security.Cryptography;
using System.Text;
using System.Text.RegularExpressions;
using NUnit.Framework;
using Tmds.Linux;

namespace Vmm.Tests.Integration.Linux;

/// <summary>The console of a Linux guest, through pipes and on a terminal.</summary>
public class ConsoleTests : LinuxTest
{
    private const int OutputSize = 128 << 10;
    private const int PasteSize = 1 << 20;
    private const byte CtrlA = 1;

    // More comes in meanwhile than Linux keeps of a terminal's input (64 KiB), so that it takes RTS back.
    private const int SlowReaderSeconds = 10;

    private static readonly int s_inputSize = (IsFull ? 1024 : 100) << 10;

    // A byte costs an exit or two, about 50 us each in the emulated host, and several times that on a busy machine.
    private static readonly TimeSpan s_transferDeadline = TimeSpan.FromMinutes(6);

    [Test]
    public void Output_Large_ArrivesUnchanged()
    {
        VmmProcess process = Boot(new LinuxGuest
        {
            Script = $"""
                head -c {OutputSize} /dev/urandom > /tmp/data
                set -- $(sha256sum /tmp/data)
                echo "sum=$1"
                cat /tmp/data
                """,
        });
        VmmResult result = process.WaitForEnd(s_transferDeadline);

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        string output = result.Output[result.Output.IndexOf("sum=", StringComparison.Ordinal)..];
        string sum = output["sum=".Length..output.IndexOf('\n', StringComparison.Ordinal)];
        string data = output[(output.IndexOf('\n', StringComparison.Ordinal) + 1)..output.LastIndexOf(LinuxGuest.Ended(0), StringComparison.Ordinal)];
        Assert.That(data, Has.Length.EqualTo(OutputSize), result.Errors);
        Assert.That(Convert.ToHexStringLower(SHA256.HashData(Encoding.Latin1.GetBytes(data))), Is.EqualTo(sum), result.Errors);
    }

    [Test]
    public void Input_Large_ReachesTheGuestUnchanged()
    {
        VmmProcess process = Boot(new LinuxGuest
        {
            Interactive = true,
            Script = $"""
                echo "line?"
                read -r line
                echo "read: $line"
                stty raw -echo crtscts
                echo "data?"
                sleep {SlowReaderSeconds}
                head -c {s_inputSize} | sha256sum
                """,
        });
        process.WaitForOutput("line?");
        process.Send("some words\n"u8);
        process.WaitForOutput("read: some words");
        process.WaitForOutput("data?");
        byte[] data = RandomNumberGenerator.GetBytes(s_inputSize);
        process.Send(data);
        VmmResult result = process.WaitForEnd(s_transferDeadline);

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(result.Output, Does.Contain(Convert.ToHexStringLower(SHA256.HashData(data))), result.Summary);
    }

    [Test]
    public void Input_PastedIntoHvc0_ReachesTheGuestUnchanged()
    {
        VmmProcess process = Boot(new LinuxGuest
        {
            Options = ["--console", "pty"],
            Script = $"""
                modprobe -a virtio_mmio virtio_console
                until [ -c /dev/hvc0 ]; do sleep 0.1; done
                exec < /dev/hvc0
                stty raw -echo
                echo "data?"
                head -c {PasteSize} | sha256sum
                """,
        });
        process.WaitForOutput("data?");
        string pty = Regex.Match(process.Errors, "/dev/pts/[0-9]+").Value;
        byte[] data = RandomNumberGenerator.GetBytes(PasteSize);
        using (FileStream terminal = new(pty, FileMode.Open, FileAccess.Write, FileShare.ReadWrite, bufferSize: 0))
            terminal.Write(data);
        VmmResult result = process.WaitForEnd(s_transferDeadline);

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(result.Output, Does.Contain(Convert.ToHexStringLower(SHA256.HashData(data))), result.Summary);
    }

    [Test]
    public void Terminal_Shell_CanBeUsedAndLeftByCtrlAX()
    {
        VmmOnTerminal vmm = BootOnTerminal(new LinuxGuest());
        vmm.WaitForScreen("guest:~# ");
        Assert.That(vmm.IsRaw, Is.True);

        vmm.Type("echo $((6 * 7)) $(tty)\r"u8);
        vmm.WaitForScreen("42 /dev/ttyS0");
        vmm.Type(CtrlA, (byte)'x');

        vmm.WaitForEnd(0);
    }

    [Test]
    public void Terminal_SignalWhileBooting_IsRestored()
    {
        VmmOnTerminal vmm = BootOnTerminal(new LinuxGuest());
        Assert.That(() => vmm.IsRaw, Is.True.After((int)VmmProcess.Deadline.TotalMilliseconds, 50), vmm.Screen);

        Assert.That(LibC.kill(vmm.Id, LibC.SIGTERM), Is.Zero);

        vmm.WaitForEnd(128 + LibC.SIGTERM);
    }

    private VmmOnTerminal BootOnTerminal(LinuxGuest guest) => Keep(new VmmOnTerminal(guest.Prepare(Scratch)));
}
