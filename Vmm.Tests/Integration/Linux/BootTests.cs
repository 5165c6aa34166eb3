using NUnit.Framework;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Integration.Linux;

/// <summary>Debian's kernels boot on every kind of machine, in every way, and find all that it has.</summary>
public class BootTests : LinuxTest
{
    private static readonly string[] s_flavours = ["cloud", "generic"];
    private static readonly string[] s_images = ["vmlinuz", "vmlinux"];
    private static readonly int[] s_cpus = [1, 2, 4];
    private static readonly string[] s_memory = ["128M", "1G", "5G"];

    [TestCaseSource(nameof(Machines))]
    public void Boot_Machine_FindsAllOfIt(string flavour, string image, int cpus, string memory) =>
        BootAndCheck(new LinuxGuest { Flavour = flavour, Image = image, Cpus = cpus, Memory = memory });

    [TestCase("cloud", "vmlinuz", "--decompress", "guest")]
    [TestCase("generic", "vmlinuz", "--decompress", "guest")]
    [TestCase("cloud", "vmlinuz", "--entry", "pvh")]
    [TestCase("generic", "vmlinux", "--entry", "pvh")]
    [TestCase("cloud", "vmlinux", "--entry", "linux64")]
    public void Boot_Entry_FindsAllOfTheMachine(string flavour, string image, string option, string value) =>
        BootAndCheck(new LinuxGuest { Flavour = flavour, Image = image, Cpus = 2, Options = [option, value] });

    // By the confined VMM: what the first one keeps the second one finds.
    [Test]
    public void Boot_KernelCache_IsFilledAndUsed()
    {
        string cache = Path.Combine(Scratch, "cache");
        PrivateDirectory.Make(cache);
        var guest = new LinuxGuest { Script = "exit 7", Options = ["--kernel-cache", cache, "--log-level", "debug"] };
        DateTime written = default;
        for (int boot = 0; boot < 2; boot++)
        {
            VmmResult result = Run(guest);

            Assert.That(result.Output, Does.Contain(LinuxGuest.Ended(7)), result.Summary);
            Assert.That(result.Errors, Does.Contain("The kept kernel was unpacked in"), result.Summary);
            string file = Directory.GetFiles(cache).Single();
            if (boot == 0)
                written = File.GetLastWriteTimeUtc(file);
            Assert.That(File.GetLastWriteTimeUtc(file), Is.EqualTo(written));
        }
    }

    [TestCase(8)]
    [TestCase(32)]
    public void Boot_ManyCpus_FindsThem(int cpus) => BootAndCheck(new LinuxGuest { Cpus = cpus, Memory = "512M" });

    // Each pair of two properties' values is there; VMM_TESTS=full has all combinations.
    private static IEnumerable<object[]> Machines() => IsFull
        ? from flavour in s_flavours from image in s_images from cpus in s_cpus from memory in s_memory select new object[] { flavour, image, cpus, memory }
        :
        [
            ["cloud", "vmlinuz", 1, "128M"], ["generic", "vmlinux", 1, "1G"], ["cloud", "vmlinux", 1, "5G"],
            ["generic", "vmlinux", 2, "128M"], ["cloud", "vmlinux", 2, "1G"], ["generic", "vmlinuz", 2, "5G"],
            ["cloud", "vmlinux", 4, "128M"], ["generic", "vmlinuz", 4, "1G"], ["cloud", "vmlinuz", 4, "5G"],
        ];
}
