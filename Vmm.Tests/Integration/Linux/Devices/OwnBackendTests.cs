using System.Globalization;
using System.Net.Sockets;
using NUnit.Framework;
using Tmds.Linux;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Integration.Linux.Devices;

/// <summary>Devices whose back-ends the VMM starts: a process of our own for each.</summary>
public class OwnBackendTests : LinuxTest
{
    private const int Cid = 51;

    private static readonly TimeSpan s_deadline = TimeSpan.FromMinutes(3);

    [Test]
    public void Guest_AllOfThem_WorkConfinedAndTheDiskSurvivesItsBackEnd()
    {
        string disk = Path.Combine(Scratch, "disk.img"), sockets = Path.Combine(Scratch, "vsock");
        using (FileStream image = File.Create(disk))
            image.SetLength(128 << 20);
        using var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(new UnixDomainSocketEndPoint(sockets + "_5000"));
        listener.Listen(1);

        VmmProcess process = Boot(new LinuxGuest
        {
            Interactive = true,
            Options =
            [
                "--disk", $"path={disk},queues=2", "--rng", "src=/dev/urandom", "--console", "pty", "--vsock", $"cid={Cid},socket={sockets}",
                "--on-reboot", "exit",
            ],
            Script = """
                stty -echo
                modprobe -a virtio_mmio virtio_blk virtio-rng virtio_console vmw_vsock_virtio_transport
                echo rng=$(cat /sys/class/misc/hw_random/rng_current) $(head -c 4096 /dev/hwrng | wc -c)
                echo "from the guest" > /dev/hvc0
                read -r line < /dev/hvc0
                echo console=$line
                echo "by a socket" | vsock send 2 5000 && echo "sent"
                head -c 33554432 /dev/urandom > /tmp/data
                echo "writing"
                for i in 0 1 2; do dd if=/tmp/data of=/dev/vda bs=1M seek=$((i * 32)) conv=fsync 2> /dev/null || echo "failed"; done
                echo "written"
                echo 3 > /proc/sys/vm/drop_caches
                for i in 0 1 2; do dd if=/dev/vda bs=1M skip=$((i * 32)) count=32 2> /dev/null | cmp - /tmp/data && echo "same"; done
                echo "end"
                read -r line
                """,
        });

        process.WaitForErrors("the guest's console is /dev/pts/");
        process.WaitForOutput("rng=");
        int[] backends = Children(process.Id);
        Assert.That(backends, Has.Length.EqualTo(4));
        foreach (int backend in backends)
            Assert.That(File.ReadAllText($"/proc/{backend}/status"), Does.Contain("NoNewPrivs:\t1\n").And.Contain("Seccomp:\t2\n"));

        using (FileDescriptor terminal = FileDescriptor.Open(TerminalOf(process), OpenMode.ReadWriteNonBlocking))
        {
            string said = "";
            byte[] buffer = new byte[256];
            Fakes.Eventually.True(
                () =>
                {
                    int count = terminal.TryRead(buffer);
                    said += count > 0 ? System.Text.Encoding.ASCII.GetString(buffer, 0, count) : "";
                    return said.Contains("from the guest", StringComparison.Ordinal);
                },
                () => $"the console said: {said}");
            terminal.WriteAll("from the host\r"u8, "the console");
            process.WaitForOutput("console=from the host");
        }
        using (Socket program = listener.Accept())
        using (var reader = new StreamReader(new NetworkStream(program)))
            Assert.That(reader.ReadToEnd(), Is.EqualTo("by a socket\n"));

        process.WaitForOutput("writing");
        int blk = backends.Single(backend => File.ReadAllText($"/proc/{backend}/cmdline").Contains("\0blk\0", StringComparison.Ordinal));
        Assert.That(process.Output, Does.Not.Contain("written"));
        Assert.That(LibC.kill(blk, LibC.SIGKILL), Is.Zero);
        process.WaitForOutput("end", 1);
        process.WaitForOutput("same", 3);
        backends = Children(process.Id);
        Assert.That(backends, Has.Length.EqualTo(4).And.No.Member(blk), "it was started again");
        process.Send("end\n"u8);
        VmmResult result = process.WaitForEnd(s_deadline);

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(result.Output, Does.Contain("rng=virtio_rng.0 4096"));
        Assert.That(result.Output, Does.Contain("sent").And.Not.Contain("failed"));
        Assert.That(backends.Where(backend => Directory.Exists($"/proc/{backend}")), Is.Empty, "still there");
        Assert.That(Directory.GetFileSystemEntries(Temporary), Is.Empty);
    }

    [Test]
    public void Vmm_Killed_LeavesNoBackEnd()
    {
        string disk = Path.Combine(Scratch, "disk.img");
        File.WriteAllBytes(disk, new byte[1 << 20]);
        VmmProcess process = Boot(new LinuxGuest
        {
            Interactive = true,
            Options = ["--disk", $"path={disk}", "--rng", "src=/dev/urandom"],
            Script = "echo ready\nread -r line",
        });
        process.WaitForOutput("ready");
        int[] backends = Children(process.Id);
        Assert.That(backends, Has.Length.EqualTo(2));
        process.Signal(LibC.SIGKILL);
        process.WaitForEnd();
        Fakes.Eventually.True(() => !backends.Any(backend => IsRunning(backend)), () => "back-ends go on without their VMM");
    }

    [Test]
    public void Disk_ThatIsNotThere_IsOneLine()
    {
        VmmResult result = Run(new LinuxGuest { Options = ["--disk", "path=/nonexistent/disk"] });
        Assert.That(result.ExitCode, Is.EqualTo(1), result.Summary);
        Assert.That(result.Errors, Is.EqualTo("vmm: --disk path=/nonexistent/disk: vmm backend blk ended with status 1: vmm: "
            + "cannot open /nonexistent/disk: No such file or directory (errno 2)\n"));
    }

    private static bool IsRunning(int id)
    {
        try
        {
            return !File.ReadAllText($"/proc/{id}/status").Contains("State:\tZ", StringComparison.Ordinal);
        }
        catch (IOException)
        {
            return false;
        }
    }

    private static int[] Children(int id) =>
        [.. Directory.GetDirectories($"/proc/{id}/task").SelectMany(task => File.ReadAllText($"{task}/children").Split(' ', StringSplitOptions.RemoveEmptyEntries))
            .Select(child => int.Parse(child, CultureInfo.InvariantCulture))];

    private static string TerminalOf(VmmProcess process)
    {
        string errors = process.Errors;
        int start = errors.IndexOf("/dev/pts/", StringComparison.Ordinal);
        return errors[start..errors.IndexOf('\n', start)];
    }
}
