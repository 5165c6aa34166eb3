using System.Diagnostics;
using NUnit.Framework;
using Vmm.Boot;
using Vmm.Boot.Payload;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Boot;

/// <summary>Damaged images: each load either succeeds or fails with one line that names the file, soon, and writes nothing where it must not.</summary>
public sealed class CorruptionTests
{
    // A load takes milliseconds; so long only on a machine that is busy with other tests.
    private static readonly TimeSpan Soon = TimeSpan.FromSeconds(60);
    private static readonly byte[] Vmlinux = new ElfBuilder().Build();

    private GuestMemory _memory = null!;

    [SetUp]
    public void SetUp() => _memory = Guest.Memory();

    [TearDown]
    public void TearDown() => _memory.Dispose();

    [TestCase(false)]
    [TestCase(true)]
    public void Load_EachSetupHeaderFieldExtreme_LoadsOrNamesTheFile(bool guestDecompression)
    {
        byte[] image = new BzImageBuilder { Payload = Packer.Pack("lz4", Vmlinux) }.Build();
        foreach (byte[] damaged in WithExtremes(image, 0x1F1, 0x26C))
            Try(damaged, guestDecompression: guestDecompression);
    }

    [Test]
    public void Load_EachElfHeaderFieldExtreme_LoadsOrNamesTheFile()
    {
        foreach (byte[] damaged in WithExtremes(Vmlinux, 4, ElfBuilder.ProgramHeaders + (4 * 56)))
            Try(damaged);
    }

    [Test]
    public void Load_EachElfHeaderFieldInPayloadExtreme_LoadsOrNamesTheFile()
    {
        foreach (byte[] damaged in WithExtremes(Vmlinux, 4, ElfBuilder.ProgramHeaders + (4 * 56)))
            Try(new BzImageBuilder { Payload = StoredLz4(damaged) }.Build(), KernelEntry.Pvh);
    }

    [Test]
    public void Load_EachNoteFieldExtreme_LoadsOrNamesTheFile()
    {
        foreach (byte[] damaged in WithExtremes(Vmlinux, ElfBuilder.NotesOffset, ElfBuilder.NotesOffset + 48))
            Try(damaged);
    }

    [TestCaseSource(typeof(Packer), nameof(Packer.Formats))]
    public void Load_EachByteOfPayloadHeadAndTailDamaged_LoadsOrNamesTheFile(string format)
    {
        byte[] image = new BzImageBuilder { Payload = Packer.Pack(format, Vmlinux) }.Build();
        int end = BzImageBuilder.PayloadStart + BitConverter.ToInt32(image, 0x24C);
        for (int i = BzImageBuilder.PayloadStart; i < end; i += i - BzImageBuilder.PayloadStart < 64 || end - i < 32 ? 1 : 1501)
        {
            foreach (byte value in (byte[])[0, 0x7F, 0xFF])
            {
                byte[] damaged = [.. image];
                damaged[i] = value;
                Try(damaged);
            }
        }
        foreach (byte[] damaged in WithExtremes(image, end - 8, end))
            Try(damaged);
    }

    [TestCaseSource(typeof(Packer), nameof(Packer.Formats))]
    public void Load_PayloadCutAnywhere_NamesTheFile(string format)
    {
        byte[] payload = Packer.Pack(format, Vmlinux);
        for (int length = 0; length < payload.Length; length += length < 64 ? 1 : 997)
        {
            // The size that belongs to it stays at the end, so that the decoder is what meets the cut.
            byte[] cut = [.. payload.AsSpan(0, length), .. BitConverter.GetBytes(Vmlinux.Length)];
            Try(new BzImageBuilder { Payload = cut }.Build());
        }
    }

    [Test]
    public void Load_FileCutAnywhere_NamesTheFile()
    {
        byte[] image = new BzImageBuilder { Payload = Packer.Pack("lz4", Vmlinux) }.Build();
        for (int length = 1; length < image.Length - 16; length += 257)
        {
            Assert.That(Try(image[..length]), Is.Not.Null, $"bzImage of {length} bytes");
            Assert.That(Try(image[..length], guestDecompression: true), Is.Not.Null, $"bzImage of {length} bytes, for the guest");
        }
        for (int length = 1; length < ElfBuilder.InitOffset + ElfBuilder.InitSize; length += 257)
            Assert.That(Try(Vmlinux[..length]), Is.Not.Null, $"vmlinux of {length} bytes");
    }

    [TestCase("lz4")]
    [TestCase("gzip")]
    [TestCase("zstd")]
    [TestCase("bzip2")]
    public void Load_PayloadThatUnpacksToMoreThanItSays_IsRefused(string format)
    {
        byte[] bomb = new byte[20 << 20];
        Vmlinux.CopyTo(bomb, 0);
        byte[] payload = Packer.Pack(format, bomb);
        BitConverter.TryWriteBytes(payload.AsSpan(^4..), Vmlinux.Length);

        Assert.That(Try(new BzImageBuilder { Payload = payload }.Build())?.Message, Does.Contain($"the {format} payload is corrupt"));
        Assert.That(
            _memory.Slice(new(ElfBuilder.Text + 0x100000), 0x100000).ContainsAnyExcept((byte)0), Is.False, "nothing is written behind it");
    }

    // It is not the file's fault.
    [Test]
    public void CopyTo_HostLacksMemory_IsNotToldAsCorruption()
    {
        byte[] image = new BzImageBuilder { Payload = Packer.Pack("lz4", Vmlinux) }.Build();
        using var file = new TempFile(image);
        using ImageFile kernel = ImageFile.OpenKernel(file.Path);
        using PackedPayload payload = PackedPayload.TryOpen(kernel, SetupHeader.Read(kernel, image))!;
        Assert.That(() => payload.CopyTo(new FailingSink(new ErrnoException("mmap", Errnos.Enomem))), Throws.TypeOf<VmmException>().With.Message
            .EqualTo($"kernel {file.Path}: the lz4 payload cannot be unpacked: mmap: Cannot allocate memory (errno 12): the host has no memory left, or this process as many mappings as it may "
                + "have: free some, or raise vm.max_map_count (sysctl)"));
        Assert.That(() => payload.CopyTo(new FailingSink(new InsufficientMemoryException())), Throws.TypeOf<VmmException>().With.Message
            .EqualTo($"kernel {file.Path}: the lz4 payload cannot be unpacked: this process gets no more memory: free some on this host, or raise the limit (ulimit -v)"));
    }

    private sealed class FailingSink(Exception failure) : IPayloadSink
    {
        public void Write(int position, ReadOnlySpan<byte> bytes) => throw failure;
    }

    [TestCase(0u)]
    [TestCase(0xFFFFFFFFu)]
    [TestCase(0x7FFFFFFFu)]
    public void Load_Lz4BlockOfImpossibleSize_IsRefused(uint size)
    {
        byte[] payload = Packer.Pack("lz4", Vmlinux);
        BitConverter.TryWriteBytes(payload.AsSpan(4), size);

        Assert.That(Try(new BzImageBuilder { Payload = payload }.Build())?.Message, Does.Contain($"a block has {size} bytes"));
    }

    [Test]
    public void Load_SegmentsWithDifferentBytesForOnePlace_AreRefused()
    {
        byte[] elf = [.. Vmlinux];
        ElfBuilder.U64(elf, ElfBuilder.ProgramHeaders + 56 + 24, ElfBuilder.Text + 0x1000);

        Assert.That(Try(elf)?.Message, Does.Contain("two PT_LOAD segments have different bytes for p_paddr 0x1001000"));
    }

    private static IEnumerable<byte[]> WithExtremes(byte[] image, int from, int to)
    {
        foreach (int width in (int[])[1, 2, 4, 8])
        {
            for (int at = from; at + width <= to; at++)
            {
                foreach (byte[] value in Extremes(width))
                {
                    byte[] damaged = [.. image];
                    value.CopyTo(damaged, at);
                    yield return damaged;
                }
            }
        }
    }

    private static IEnumerable<byte[]> Extremes(int width)
    {
        byte[] ones = Enumerable.Repeat((byte)0xFF, width).ToArray();
        yield return new byte[width];
        yield return [1, .. new byte[width - 1]];
        yield return [.. ones.AsSpan(1), 0x7F];
        yield return [.. new byte[width - 1], 0x80];
        yield return ones;
    }

    /// <summary>An lz4 payload without compression, made here: thousands of runs of a tool would take too long.</summary>
    private static byte[] StoredLz4(byte[] content)
    {
        int more = content.Length - 15;
        byte[] block = [0xF0, .. Enumerable.Repeat((byte)0xFF, more / 255), (byte)(more % 255), .. content];
        return [0x02, 0x21, 0x4C, 0x18, .. BitConverter.GetBytes(block.Length), .. block, .. BitConverter.GetBytes(content.Length)];
    }

    private VmmException? Try(byte[] image, KernelEntry entry = KernelEntry.Auto, bool guestDecompression = false)
    {
        using var file = new TempFile(image);
        long start = Stopwatch.GetTimestamp();
        VmmException? failure = null;
        try
        {
            Guest.Load(_memory, file, entry, guestDecompression);
        }
        catch (VmmException e)
        {
            failure = e;
            Assert.That(e.Message, Does.Contain(file.Path).Or.StartsWith("--cmdline"));
            Assert.That(e.Message, Does.Not.Contain("\n"));
        }
        Assert.That(Stopwatch.GetElapsedTime(start), Is.LessThan(Soon), () => failure?.Message ?? "loaded");
        return failure;
    }
}
