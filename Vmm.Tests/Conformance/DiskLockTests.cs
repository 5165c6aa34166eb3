using System.Diagnostics;
using NUnit.Framework;
using Vmm.Devices.Backends.Block;
using Vmm.Tests.Fakes;
using Vmm.Vhost;

namespace Vmm.Tests.Conformance;

/// <summary>Our block back-end and QEMU's own programs on one image, in both directions: each keeps off what the other has.</summary>
public class DiskLockTests : PeerTest
{
    private const string QemuIo = "/usr/bin/qemu-io";
    private const string QemuImg = "/usr/bin/qemu-img";

    private string _image = "";

    [SetUp]
    public void MakeImage()
    {
        _image = Path.Combine(Scratch, "disk.img");
        File.WriteAllBytes(_image, new byte[1 << 20]);
    }

    [Test]
    public void OursWrites_QemuMayNotWrite()
    {
        Require(QemuIo);
        using var ours = new BlockBackend(new BlockOptions { Path = _image });
        (bool isDone, string output) = Run(QemuIo, "-f", "raw", "-c", "write 0 512", _image);
        Assert.That(isDone, Is.False, output);
        Assert.That(output, Does.Contain("lock"));
        Assert.That(Run(QemuImg, "resize", "-f", "raw", _image, "2M").IsDone, Is.False, "nor resize it");
    }

    [Test]
    public void OursReads_QemuMayReadAndNotWrite()
    {
        Require(QemuIo);
        using var ours = new BlockBackend(new BlockOptions { Path = _image, ReadOnly = true });
        (bool isDone, string output) = Run(QemuIo, "-f", "raw", "-r", "-c", "read 0 512", _image);
        Assert.That(isDone, Is.True, output);
        Assert.That(Run(QemuImg, "info", "-f", "raw", _image).IsDone, Is.True);
        (isDone, output) = Run(QemuIo, "-f", "raw", "-c", "write 0 512", _image);
        Assert.That(isDone, Is.False, output);
    }

    [Test]
    public void OursUnlocked_QemuMayDoWhatItLikes()
    {
        Require(QemuIo);
        using var ours = new BlockBackend(new BlockOptions { Path = _image, Locking = BlockLocking.Off });
        (bool isDone, string output) = Run(QemuIo, "-f", "raw", "-c", "write 0 512", _image);
        Assert.That(isDone, Is.True, output);
    }

    [Test]
    public void OursIsGone_QemuMayWrite()
    {
        Require(QemuIo);
        new BlockBackend(new BlockOptions { Path = _image }).Dispose();
        (bool isDone, string output) = Run(QemuIo, "-f", "raw", "-c", "write 0 512", _image);
        Assert.That(isDone, Is.True, output);
    }

    [Test]
    public void QemuWrites_OursIsRefused([Values] bool readOnly)
    {
        Require(QemuIo);
        using (Process qemu = Hold(QemuIo, "-f", "raw", _image))
        {
            Assert.That(() => new BlockBackend(new BlockOptions { Path = _image, ReadOnly = readOnly }),
                Throws.InstanceOf<VhostException>().With.Message.Contains($"cannot lock {_image}").And.Message.Contains("somebody else has it open"));
            new BlockBackend(new BlockOptions { Path = _image, ReadOnly = readOnly, Locking = BlockLocking.Off }).Dispose();
            End(qemu);
        }
        new BlockBackend(new BlockOptions { Path = _image, ReadOnly = readOnly }).Dispose();
    }

    [Test]
    public void QemuReads_OursMayRead()
    {
        Require(QemuIo);
        using Process qemu = Hold(QemuIo, "-f", "raw", "-r", _image);
        new BlockBackend(new BlockOptions { Path = _image, ReadOnly = true }).Dispose();
        End(qemu);
    }

    [Test]
    public void QemusDisk_AndOurs_ExcludeEachOther([Values] bool readOnly, [Values] bool oursReadOnly)
    {
        Require("/usr/bin/qemu-system-x86_64");
        string drive = $"if=none,id=d,format=raw,file={_image},read-only={(readOnly ? "on" : "off")}";
        string[] arguments = ["-machine", "q35", "-accel", "tcg", "-S", "-display", "none", "-nodefaults", "-qmp", "stdio",
            "-drive", drive, "-device", "virtio-blk-pci,drive=d"];
        using (Process qemu = Start("/usr/bin/qemu-system-x86_64", arguments))
        {
            Assert.That(HasDisk(qemu), Is.True, () => qemu.StandardError.ReadToEnd());
            if (readOnly && oursReadOnly)
                new BlockBackend(new BlockOptions { Path = _image, ReadOnly = true }).Dispose();
            else
                Assert.That(() => new BlockBackend(new BlockOptions { Path = _image, ReadOnly = oursReadOnly }), Throws.InstanceOf<VhostException>());
            qemu.Kill();
            qemu.WaitForExit();
        }
        using var ours = new BlockBackend(new BlockOptions { Path = _image, ReadOnly = oursReadOnly });
        using (Process qemu = Start("/usr/bin/qemu-system-x86_64", arguments))
        {
            bool hasDisk = HasDisk(qemu);
            qemu.Kill();
            Assert.That(hasDisk, Is.EqualTo(readOnly && oursReadOnly), qemu.StandardError.ReadToEnd());
            qemu.WaitForExit();
        }
    }

    [Test]
    public void StorageDaemonWrites_OursIsRefused([Values] bool readOnly)
    {
        Require(StorageDaemon);
        string socket = Path.Combine(Scratch, "daemon.sock");
        using Process daemon = Start(StorageDaemon, "--blockdev", $"driver=file,node-name=disk,filename={_image}",
            "--export", $"vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path={socket},writable=on");
        Eventually.True(() => File.Exists(socket), () => "the daemon does not listen");
        Assert.That(() => new BlockBackend(new BlockOptions { Path = _image, ReadOnly = readOnly }), Throws.InstanceOf<VhostException>());
        daemon.Kill();
        daemon.WaitForExit();
    }

    private static (bool IsDone, string Output) Run(string program, params string[] arguments)
    {
        using Process process = Start(program, arguments);
        process.StandardInput.Close();
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd() + errors.Result;
        process.WaitForExit();
        // qemu-io says what failed, and ends with status 0 all the same.
        return (process.ExitCode == 0 && !output.Contains("can't open", StringComparison.Ordinal), output);
    }

    // Whether a virtual machine has come so far that it answers: it has opened its disk before. Its greeting may come earlier.
    private static bool HasDisk(Process qemu)
    {
        try
        {
            qemu.StandardInput.WriteLine("""{"execute": "qmp_capabilities"}""");
            qemu.StandardInput.Flush();
        }
        catch (IOException)
        {
            return false;
        }
        return qemu.StandardOutput.ReadLine() is not null && qemu.StandardOutput.ReadLine() is not null;
    }

    // Starts qemu-io, and returns when it has the image open: it writes its prompt then.
    private static Process Hold(string program, params string[] arguments)
    {
        Process process = Start(program, arguments);
        char[] prompt = new char["qemu-io>".Length];
        Assert.That(process.StandardOutput.ReadBlock(prompt), Is.EqualTo(prompt.Length), () => process.StandardError.ReadToEnd());
        return process;
    }

    private static void End(Process process)
    {
        process.StandardInput.Close();
        process.WaitForExit();
    }

    private static Process Start(string program, params string[] arguments) => Process.Start(new ProcessStartInfo(program, arguments)
    {
        RedirectStandardInput = true,
        RedirectStandardOutput = true,
        RedirectStandardError = true,
    })!;
}
