using NUnit.Framework;
using Vmm.Boot;
using Vmm.Boot.Cache;
using Vmm.Cli;
using Vmm.Machine;
using Vmm.Serial;

namespace Vmm.Tests.Cli;

public class RunOptionsReaderTests
{
    [Test]
    public void Read_OnlyAKernel_HasTheDefaults()
    {
        MachineConfig config = Read("--kernel", "vmlinuz");
        Assert.Multiple(() =>
        {
            Assert.That(config.Kernel.KernelPath, Is.EqualTo("vmlinuz"));
            Assert.That(config.Kernel.InitramfsPath, Is.Null);
            Assert.That(config.Kernel.CommandLine, Is.Empty);
            Assert.That(config.Kernel.GuestDecompression, Is.False);
            Assert.That(config.Kernel.Entry, Is.EqualTo(KernelEntry.Auto));
            Assert.That(config.Cpus, Is.EqualTo(1));
            Assert.That(config.MemorySize, Is.EqualTo(512UL << 20));
            Assert.That(config.Memory.HugePageSize, Is.Zero);
            Assert.That(config.Memory.Prefault, Is.False);
            Assert.That(config.Serial, Is.EqualTo(new SerialConfig(SerialKind.Tty)));
            Assert.That(config.OnReboot, Is.EqualTo(RebootAction.Restart));
            Assert.That(config.OnPanic, Is.EqualTo(PanicAction.Exit));
            Assert.That(config.ShutdownTimeout, Is.EqualTo(TimeSpan.Zero));
        });
    }

    [Test]
    public void Read_EveryOption_IsTakenOver()
    {
        MachineConfig config = Read("--kernel=/boot/vm linuz", "--initramfs", "guest.cpio", "--cmdline", "console=ttyS0 root=/dev/vda,rw",
            "--cpus", "boot=4", "--memory", "size=1G,hugepages=on,prefault=true", "--serial", "socket=\"/run/a,b=c\"", "--on-reboot", "exit",
            "--on-panic", "halt", "--shutdown-timeout", "90s", "--decompress", "guest", "--entry", "pvh");
        Assert.Multiple(() =>
        {
            Assert.That(config.Kernel.KernelPath, Is.EqualTo("/boot/vm linuz"));
            Assert.That(config.Kernel.InitramfsPath, Is.EqualTo("guest.cpio"));
            Assert.That(config.Kernel.CommandLine, Is.EqualTo("console=ttyS0 root=/dev/vda,rw"));
            Assert.That(config.Kernel.GuestDecompression, Is.True);
            Assert.That(config.Kernel.Entry, Is.EqualTo(KernelEntry.Pvh));
            Assert.That(config.Cpus, Is.EqualTo(4));
            Assert.That(config.MemorySize, Is.EqualTo(1UL << 30));
            Assert.That(config.Memory.HugePageSize, Is.EqualTo(2UL << 20));
            Assert.That(config.Memory.Prefault, Is.True);
            Assert.That(config.Serial, Is.EqualTo(new SerialConfig(SerialKind.Socket, "/run/a,b=c")));
            Assert.That(config.OnReboot, Is.EqualTo(RebootAction.Exit));
            Assert.That(config.OnPanic, Is.EqualTo(PanicAction.Halt));
            Assert.That(config.ShutdownTimeout, Is.EqualTo(TimeSpan.FromSeconds(90)));
        });
    }

    [TestCase("file=x", "x", false)]
    [TestCase("file=x,truncate=on", "x", true)]
    [TestCase("file=x,truncate=off", "x", false)]
    [TestCase("file=\"q,r\"", "q,r", false)]
    public void Read_SerialFile_TakesQuotesForCommas(string value, string path, bool truncate) =>
        Assert.That(Read("--kernel", "k", "--serial", value).Serial, Is.EqualTo(new SerialConfig(SerialKind.File, path, truncate)));

    [Test]
    public void Read_TwoDirectoriesWithOneTag_IsRefused() => Assert.That(
        () => Read("--kernel", "k", "--fs", "tag=a,source=/srv", "--fs", "tag=b,source=/srv", "--fs", "tag=a,socket=s"),
        Throws.TypeOf<UsageException>().With.Message.EqualTo("--fs: tag 'a' is given more than once: give each directory another tag"));

    [TestCase("-x", "--cmdline", "-x")]
    [TestCase("-x", "--cmdline=-x")]
    [TestCase("--quiet a=b", "--cmdline=--quiet a=b")]
    [TestCase(" a ", "--cmdline= a ")]
    [TestCase("", "--cmdline", "")]
    [TestCase("", "--cmdline=")]
    [TestCase("a\nb", "--cmdline=a\nb")]
    [TestCase("dyndbg=\"file x +p\"", "--cmdline", "dyndbg=\"file x +p\"")]
    public void Read_CommandLine_IsTakenAsItIs(string expected, params string[] args) =>
        Assert.That(Read(["--kernel", "k", .. args]).Kernel.CommandLine, Is.EqualTo(expected));

    [Test]
    public void Parse_OptionThatLooksLikeAValue_IsTheValue() =>
        Assert.That(Read("--kernel", "--cpus").Kernel.KernelPath, Is.EqualTo("--cpus"));

    [TestCase(null, "--kernel", "k")]
    [TestCase("/var/cache/vmm", "--kernel", "k", "--kernel-cache", "/var/cache/vmm")]
    public void Read_KernelCache_IsTheUsersOrTheOneNamed(string? directory, params string[] args) =>
        Assert.That(Read(args).Kernel.Cache, Is.EqualTo(new KernelCacheOptions(directory)));

    [Test]
    public void Read_KernelCacheOff_KeepsNothing() => Assert.That(Read("--kernel", "k", "--kernel-cache", "off").Kernel.Cache, Is.Null);

    [Test]
    public void Read_KernelCacheWithoutName_IsRefused() => Assert.That(
        () => Read("--kernel", "k", "--kernel-cache="), Throws.TypeOf<UsageException>().With.Message.StartsWith("--kernel-cache"));

    private static MachineConfig Read(params string[] args) => RunOptionsReader.Read((RunOptions)Verbs.Parse(["run", .. args]));
}
