using NUnit.Framework;
using Vmm.Cli;
using Vmm.Cpu;
using Vmm.Serial;

namespace Vmm.Tests.Cli;

public class OptionValueTests
{
    [TestCase("1", 1UL)]
    [TestCase("1073741824", 1073741824UL)]
    [TestCase("3K", 3UL << 10)]
    [TestCase("512M", 512UL << 20)]
    [TestCase("512m", 512UL << 20)]
    [TestCase("1G", 1UL << 30)]
    [TestCase("64T", 64UL << 40)]
    [TestCase("18446744073709551615", ulong.MaxValue)]
    [TestCase("16777215T", 16777215UL << 40)]
    public void ParseSize_Valid_IsBytes(string text, ulong expected) =>
        Assert.That(SizeValue.Parse(new OptionValue("--memory", "size", text)), Is.EqualTo(expected));

    [TestCase("", "is not a size")]
    [TestCase("M", "is not a size")]
    [TestCase("-1", "is not a size")]
    [TestCase("+1", "is not a size")]
    [TestCase(" 1", "is not a size")]
    [TestCase("1 M", "is not a size")]
    [TestCase("1.5G", "is not a size")]
    [TestCase("0x1000", "is not a size")]
    [TestCase("1MB", "is not a size")]
    [TestCase("1MiB", "is not a size")]
    [TestCase("1KK", "is not a size")]
    [TestCase("1P", "is not a size")]
    [TestCase("١M", "is not a size")]
    [TestCase("0", "is zero")]
    [TestCase("0G", "is zero")]
    [TestCase("18446744073709551616", "is too large")]
    [TestCase("16777216T", "is too large")]
    [TestCase("99999999999999999999999999G", "is too large")]
    public void ParseSize_Invalid_NamesOptionKeyAndValue(string text, string why) =>
        Assert.That(() => SizeValue.Parse(new OptionValue("--memory", "size", text)),
            Throws.TypeOf<UsageException>().With.Message.StartsWith($"--memory: size='{text}' {why}"));

    [TestCase("1", 1)]
    [TestCase("1024", 1024)]
    [TestCase("boot=7", 7)]
    public void ParseCpus_Valid_IsTheNumber(string text, int expected) => Assert.That(CpusOption.Parse(text).Count, Is.EqualTo(expected));

    [TestCase("boot=2", "Host", false, false, false)]
    [TestCase("nested=on", "Host", true, false, false)]
    [TestCase("boot=2,pmu=on,nested=off", "Host", false, true, false)]
    [TestCase("amx=true", "Host", false, false, true)]
    [TestCase("profile=x86-64-v2,pmu=on,nested=on", "V2", true, true, false)]
    [TestCase("profile=x86-64-v3,amx=off", "V3", false, false, false)]
    [TestCase("profile=x86-64-v4", "V4", false, false, false)]
    public void ParseCpus_Features_AreThose(string text, string profile, bool nested, bool pmu, bool amx)
    {
        (int count, CpuOptions options) = CpusOption.Parse(text);

        Assert.That(options, Is.EqualTo(new CpuOptions { Profile = Enum.Parse<CpuProfile>(profile), Nested = nested, Pmu = pmu, Amx = amx }));
        Assert.That(count, Is.EqualTo(text.StartsWith("boot=2", StringComparison.Ordinal) ? 2 : 1));
    }

    [TestCase("profile=x86-64-v1", "profile='x86-64-v1' is not allowed: choose one of x86-64-v2, x86-64-v3, x86-64-v4")]
    [TestCase("boot=1,profile=host", "profile='host' is not allowed")]
    [TestCase("nested=yes", "nested='yes' is not allowed")]
    [TestCase("4,nested=on", "'4' is not of the form key=value")]
    [TestCase("profile=x86-64-v3,amx=on", "amx='on' cannot be with profile=x86-64-v3")]
    public void ParseCpus_WrongFeatures_NamesThem(string text, string why) =>
        Assert.That(() => CpusOption.Parse(text), Throws.TypeOf<UsageException>().With.Message.StartsWith($"--cpus: {why}"));

    [TestCase("")]
    [TestCase("0")]
    [TestCase("1025")]
    [TestCase("-1")]
    [TestCase("1.5")]
    [TestCase("two")]
    [TestCase("99999999999")]
    [TestCase("boot=0")]
    [TestCase("boot=")]
    [TestCase("boot")]
    [TestCase("max=4")]
    [TestCase("boot=1,boot=2")]
    [TestCase("boot=1,max=4")]
    [TestCase("boot=\"\"")]
    public void ParseCpus_Invalid_IsRefused(string text) =>
        Assert.That(() => CpusOption.Parse(text), Throws.TypeOf<UsageException>().With.Message.StartsWith("--cpus: "));

    [TestCase("64M", 64UL << 20, 0UL, false)]
    [TestCase("64T", 64UL << 40, 0UL, false)]
    [TestCase("size=65M", 65UL << 20, 0UL, false)]
    [TestCase("size=1G,hugepages=on", 1UL << 30, 2UL << 20, false)]
    [TestCase("hugepage_size=1G,prefault=on,hugepages=true,size=4G", 4UL << 30, 1UL << 30, true)]
    [TestCase("size=1G,hugepages=off,prefault=off", 1UL << 30, 0UL, false)]
    [TestCase("size=\"1G\"", 1UL << 30, 0UL, false)]
    public void ParseMemory_Valid_IsTakenOver(string text, ulong size, ulong hugePageSize, bool prefault)
    {
        (ulong actual, Vhost.Memory.GuestMemoryOptions options) = MemoryOption.Parse(text);
        Assert.That((actual, options.HugePageSize, options.Prefault), Is.EqualTo((size, hugePageSize, prefault)));
    }

    [TestCase("", "'' is not a size")]
    [TestCase("0", "'0' is zero")]
    [TestCase("512", "'512' is out of range: a guest takes 64M to 64T")]
    [TestCase("67108863", "out of range")]
    [TestCase("65T", "'65T' is out of range")]
    [TestCase("67108865", "'67108865' is not a multiple of 4K")]
    [TestCase("size=65M,hugepages=on", "size='65M' is not a multiple of 2M")]
    [TestCase("size=1536M,hugepages=on,hugepage_size=1G", "size='1536M' is not a multiple of 1G")]
    [TestCase("size=1G,hugepage_size=2M", "hugepage_size='2M' has no effect without hugepages=on")]
    [TestCase("size=1G,hugepages=off,hugepage_size=2M", "hugepage_size='2M' has no effect without hugepages=on")]
    [TestCase("size=1G,hugepages=on,hugepage_size=3M", "hugepage_size='3M' is not a huge page size")]
    [TestCase("size=1G,hugepages=on,hugepage_size=4K", "hugepage_size='4K' is not a huge page size")]
    [TestCase("size=1G,hugepages=maybe", "hugepages='maybe' is not allowed: choose one of on, off, true, false")]
    [TestCase("size=1G,prefault=1", "prefault='1' is not allowed")]
    [TestCase("hugepages=on", "has no size")]
    [TestCase("size=1G,size=2G", "key 'size' is given more than once")]
    [TestCase("size=1G,", "'' is not of the form key=value")]
    [TestCase("size=", "key 'size' has no value")]
    [TestCase("size=1G,hugepages", "key 'hugepages' has no value")]
    [TestCase("512M,hugepages=on", "'512M' is not of the form key=value: allowed are size, hugepages, hugepage_size, prefault")]
    [TestCase("huge=1", "unknown key 'huge': allowed are size, hugepages, hugepage_size, prefault")]
    public void ParseMemory_Invalid_SaysWhy(string text, string why) =>
        Assert.That(() => MemoryOption.Parse(text), Throws.TypeOf<UsageException>().With.Message.StartsWith("--memory: ").And.Message.Contain(why));

    [Test]
    public void ParseSerial_Valid_IsTakenOver()
    {
        Assert.That(SerialOption.Parse("tty"), Is.EqualTo(new SerialConfig(SerialKind.Tty)));
        Assert.That(SerialOption.Parse("null"), Is.EqualTo(new SerialConfig(SerialKind.Null)));
        Assert.That(SerialOption.Parse("off"), Is.EqualTo(new SerialConfig(SerialKind.Off)));
        Assert.That(SerialOption.Parse("file=a=\"b,c\""), Is.EqualTo(new SerialConfig(SerialKind.File, "a=b,c")));
        Assert.That(SerialOption.Parse("socket=/run/s"), Is.EqualTo(new SerialConfig(SerialKind.Socket, "/run/s")));
        Assert.That(SerialOption.Parse("socket=" + new string('a', 107)).Path, Has.Length.EqualTo(107));
    }

    [TestCase("")]
    [TestCase("TTY")]
    [TestCase("file")]
    [TestCase("pty")]
    [TestCase("tty=x")]
    public void ParseSerial_Invalid_IsRefused(string text) =>
        Assert.That(() => SerialOption.Parse(text), Throws.TypeOf<UsageException>().With.Message.StartsWith($"--serial: '{text}' "));

    [TestCase("file=", "key 'file' has no value: write file=VALUE")]
    [TestCase("socket=", "key 'socket' has no value: write socket=VALUE")]
    [TestCase("file=\"a", "'file=\"a' has a quote (\") that is not closed")]
    [TestCase("file=a,b", "'b' is not of the form key=value: allowed are file, truncate")]
    [TestCase("socket=a,b", "'b' is not of the form key=value: allowed is socket")]
    public void ParseSerial_FileOrSocketWithMore_IsRefused(string text, string why) =>
        Assert.That(() => SerialOption.Parse(text), Throws.TypeOf<UsageException>().With.Message.EqualTo($"--serial: {why}"));

    [Test]
    public void ParseSerial_SocketPathTooLong_IsRefused() =>
        Assert.That(() => SerialOption.Parse("socket=" + new string('é', 54)),
            Throws.TypeOf<UsageException>().With.Message.Contains("at most 107 bytes"));
}
