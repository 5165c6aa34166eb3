using System.Globalization;
using System.Numerics;
using NUnit.Framework;

namespace Vmm.Tests.Integration;

/// <summary>What a kernel finds when it is entered: by the 64-bit boot protocol, and by PVH.</summary>
public class BootProtocolTests : KvmTest
{
    private const ulong MiB = 1 << 20;
    private const ulong GiB = 1 << 30;
    private const ulong LowRamEnd = 3 * GiB;

    [Test]
    public void Entry64_CommandLineAndInitramfs_AreInTheZeroPage()
    {
        byte[] initramfs = RandomBytes(30_001);
        string path = Path.Combine(Scratch, "initramfs");
        File.WriteAllBytes(path, initramfs);

        VmmResult result = Run("bootinfo", "--cmdline", "console=ttyS0 -- a \"b c\"", "--initramfs", path, "--memory", "64M");

        Assert.That(result.ExitCode, Is.Zero, result.Errors);
        string[] lines = result.Output.Split('\n');
        Assert.That(lines[0], Is.EqualTo("cs 0x10 ds 0x18 es 0x18 ss 0x18 interrupts 0x0"));
        Assert.That(Line(lines, "boot_flag: "), Is.EqualTo("0xaa55"));
        Assert.That(Line(lines, "header: "), Is.EqualTo("HdrS"));
        Assert.That(Number(Line(lines, "protocol: ")), Is.GreaterThanOrEqualTo(0x20C), "the first with a 64-bit entry");
        Assert.That(Line(lines, "loader: "), Is.EqualTo("0xff"));
        Assert.That(Line(lines, "command line: "), Is.EqualTo("console=ttyS0 -- a \"b c\""));
        Assert.That(Line(lines, "rsdp: "), Is.EqualTo("0xe0000 RSD PTR  0x0 0x0"));

        ulong[] place = Numbers(Line(lines, "initramfs: "));
        Assert.That(place[1], Is.EqualTo((ulong)initramfs.Length));
        Assert.That(place[2], Is.EqualTo(initramfs.Aggregate(0UL, (sum, value) => BitOperations.RotateLeft(sum, 1) + value)));
        Assert.That(place[0] % 4096, Is.Zero);
        Assert.That(place[0] + place[1], Is.LessThanOrEqualTo(64 * MiB));
    }

    [Test]
    public void Entry64_NoCommandLineAndInitramfs_AreEmpty()
    {
        string[] lines = Run("bootinfo").Output.Split('\n');

        Assert.That(Line(lines, "command line: "), Is.Empty);
        Assert.That(Line(lines, "initramfs: "), Is.EqualTo("0x0 0x0 0x0"));
    }

    [TestCase("64M", 64 * MiB)]
    [TestCase("3G", 3 * GiB)]
    [TestCase("5G", 5 * GiB)]
    public void Entry64_MemoryMap_HasTheMemoryAskedFor(string option, ulong size)
    {
        string[] lines = Run("bootinfo", "--memory", option).Output.Split('\n');

        ulong[][] map = lines.Where(line => line.StartsWith("e820: ", StringComparison.Ordinal))
            .Select(line => Numbers(line["e820: ".Length..])).ToArray();
        ulong[][] usable = map.Where(entry => entry[2] == 1).ToArray();
        ulong low = Math.Min(size, LowRamEnd);
        ulong[][] wanted = [[0, usable[0][1], 1], [MiB, low - MiB, 1]];
        if (size > low)
            wanted = [.. wanted, [4 * GiB, size - low, 1]];
        Assert.That(usable, Is.EqualTo(wanted));
        Assert.That(usable[0][1], Is.InRange(0x9F000, 0xA0000), "conventional memory");
        Assert.That(map.Zip(map.Skip(1)), Has.All.Matches<(ulong[] This, ulong[] Next)>(pair => pair.This[0] + pair.This[1] <= pair.Next[0]));
    }

    [TestCase("64M", "right at 0x3fffff8\n")]
    [TestCase("5G", "right at 0xbffffff8\nright at 0x100000000\nright at 0x17ffffff8\n")]
    public void Memory_EachUsableRange_IsThereToItsEnds(string option, string output)
    {
        VmmResult result = Run("memory", "--memory", option);

        Assert.That(result.Output, Is.EqualTo(output));
        Assert.That(result.ExitCode, Is.Zero, result.Errors);
    }

    [Test]
    public void Pvh_KernelWithNote_IsEnteredIn32BitMode()
    {
        byte[] initramfs = RandomBytes(5_000);
        string path = Path.Combine(Scratch, "initramfs");
        File.WriteAllBytes(path, initramfs);

        VmmResult result = Run("pvh", "--cmdline", "one two", "--initramfs", path, "--memory", "5G");

        Assert.That(result.ExitCode, Is.Zero, result.Errors);
        string[] lines = result.Output.Split('\n');
        Assert.That(lines[0], Is.EqualTo("cr0 00000011 cr4 00000000 eflags 00000002").Or.EqualTo("cr0 00000001 cr4 00000000 eflags 00000002"));
        Assert.That(Line(lines, "magic: "), Is.EqualTo("336ec578"));
        Assert.That(Line(lines, "version: "), Is.EqualTo("00000001"));
        Assert.That(Line(lines, "command line: "), Is.EqualTo("one two"));
        Assert.That(Line(lines, "rsdp: "), Is.EqualTo("00000000000e0000"));
        string[] memory = lines.Where(line => line.StartsWith("memory: ", StringComparison.Ordinal)).ToArray();
        Assert.That(memory, Has.Member("memory: 0000000000100000 00000000bff00000 00000001"));
        Assert.That(memory, Has.Member("memory: 0000000100000000 0000000080000000 00000001"));
        string[] module = Line(lines, "module: ").Split(' ');
        uint sum = initramfs.Aggregate(0U, (sum, value) => BitOperations.RotateLeft(sum, 1) + value);
        Assert.That(module[1..], Is.EqualTo(new[] { $"{initramfs.Length:x16}", $"{sum:x8}" }));
    }

    [Test]
    public void Pvh_EntryLinux64_UsesTheElfEntry()
    {
        VmmResult result = Run("pvh", "--entry", "linux64");

        Assert.That(result.Output, Is.EqualTo("64-bit entry\n"));
        Assert.That(result.ExitCode, Is.Zero, result.Errors);
    }

    private static string Line(string[] lines, string label) =>
        lines.Single(line => line.StartsWith(label, StringComparison.Ordinal))[label.Length..];

    private static ulong[] Numbers(string text) => text.Split(' ').Select(Number).ToArray();

    private static ulong Number(string text) => ulong.Parse(text["0x".Length..], NumberStyles.HexNumber, CultureInfo.InvariantCulture);

    private static byte[] RandomBytes(int count)
    {
        byte[] bytes = new byte[count];
        new Random(1).NextBytes(bytes);
        return bytes;
    }
}
