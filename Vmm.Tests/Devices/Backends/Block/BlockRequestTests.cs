using System.Text;
using NUnit.Framework;
using Vmm.Devices.Backends.Block;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Devices.Backends.Block;

/// <summary>Each kind of request, by each engine, through the page cache and past it.</summary>
[TestFixture(BlockEngineKind.IoUring, false)]
[TestFixture(BlockEngineKind.IoUring, true)]
[TestFixture(BlockEngineKind.Threads, false)]
[TestFixture(BlockEngineKind.Threads, true)]
[TestFixture(BlockEngineKind.IoUring, true, "/dev/shm")]
[TestFixture(BlockEngineKind.Threads, true, "/dev/shm")]
public sealed class BlockRequestTests(BlockEngineKind engine, bool direct, string? directory = null)
{
    private const int Sector = 512;

    private Image _image = null!;
    private BlockDriver _driver = null!;

    [SetUp]
    public void Open()
    {
        int errno = engine == BlockEngineKind.IoUring ? IoUring.Probe() : 0;
        if (errno != 0)
            Assert.Ignore($"no io_uring here (errno {errno}); see /proc/sys/kernel/io_uring_disabled");
        if (directory is not null && !Directory.Exists(directory))
            Assert.Ignore($"no tmpfs at {directory}");
        _image = new Image(Image.Size, directory);
        try
        {
            _driver = new BlockDriver(Options(_image));
        }
        catch (Vmm.Vhost.VhostException e) when (directory is not null && e.Message.Contains("leave direct off"))
        {
            Assert.Ignore(e.Message);
        }
    }

    [TearDown]
    public void Close()
    {
        _driver?.Dispose();
        _image?.Dispose();
    }

    [Test]
    public void Read_Sectors_AreTheImages([Values(512, 4096, 4608, 131072)] int length)
    {
        BlockAnswer answer = _driver.Do(BlockDriver.In, 3, room: length);
        Assert.That(answer.Status, Is.EqualTo(BlockDriver.Ok));
        Assert.That(answer.Written, Is.EqualTo(length + 1));
        Assert.That(answer.Data, Is.EqualTo(_image.Original[(3 * Sector)..(3 * Sector + length)]));
    }

    // An image is raw, whatever a guest writes to its beginning: here the header of a QCOW2 file whose backing file is one of the host's.
    [Test]
    public void Read_GuestMadeItLookLikeQcow2_GivesItsBytesAlsoWhenOpenedAgain()
    {
        byte[] header = new byte[Sector];
        "QFI"u8.CopyTo(header);
        header[3] = 0xFB;
        header[7] = 3;                      // version
        header[15] = 104;                   // the backing file's name is at byte 104,
        header[19] = (byte)"/etc/hosts".Length;
        "/etc/hosts"u8.CopyTo(header.AsSpan(104));
        Assert.That(_driver.Do(BlockDriver.Out, 0, header).Status, Is.EqualTo(BlockDriver.Ok));
        _driver.Dispose();
        _driver = new BlockDriver(Options(_image));

        Assert.That(_driver.Do(BlockDriver.In, 0, room: Sector).Data, Is.EqualTo(header));
        Assert.That(_driver.Do(BlockDriver.In, 1, room: Sector).Data, Is.EqualTo(_image.Original[Sector..(2 * Sector)]));
    }

    [Test]
    public void Write_Sectors_AreInTheImage([Values(512, 4096, 4608, 131072)] int length)
    {
        byte[] data = Random(length);
        BlockAnswer answer = _driver.Do(BlockDriver.Out, 8, data);
        Assert.That(answer.Status, Is.EqualTo(BlockDriver.Ok));
        Assert.That(answer.Written, Is.EqualTo(1));
        AssertChanged(8 * Sector, data);
    }

    // Headers in pieces, data in pieces that no device could take as they are, the status with the data or alone.
    [TestCase(new[] { 1, 7, 8 }, new[] { 512, 4096 })]
    [TestCase(new[] { 20, 100, 1 }, new[] { 1, 1, 511, 3 })]
    [TestCase(new[] { 1 << 20 }, new[] { 1 << 20 })]
    [TestCase(new[] { 16, 8192 }, new[] { 8192 })]
    [TestCase(new[] { 3, 13, 4096 }, new[] { 4096, 4095 })]
    public void ReadAndWrite_HoweverCutUp_AreTheSame(int[] readableCuts, int[] writableCuts)
    {
        byte[] data = Random(8192);
        foreach (bool indirect in (ReadOnlySpan<bool>)[false, true])
        {
            data[0]++;
            Assert.That(_driver.Do(BlockDriver.Out, 16, data, 0, readableCuts, [1], indirect).Status, Is.EqualTo(BlockDriver.Ok));
            BlockAnswer answer = _driver.Do(BlockDriver.In, 16, default, data.Length, readableCuts, writableCuts, indirect);
            Assert.That(answer.Status, Is.EqualTo(BlockDriver.Ok));
            Assert.That(answer.Data, Is.EqualTo(data));
        }
        AssertChanged(16 * Sector, data);
    }

    [Test]
    public void ReadAndWrite_LargeAndUnaligned_AreTheSame()
    {
        byte[] data = Random(300 * 1024);
        Assert.That(_driver.Do(BlockDriver.Out, 1, data, 0, [17, 1000], [1]).Status, Is.EqualTo(BlockDriver.Ok));
        Assert.That(_driver.Do(BlockDriver.In, 1, default, data.Length, [16], [5, 70000]).Data, Is.EqualTo(data));
        AssertChanged(Sector, data);
    }

    [TestCase(5 << 20)]
    [TestCase(100 * 1024, 4096, 4 << 20)]
    [TestCase(3 << 20, 1 << 20, 512)]
    [TestCase(1, 4 << 20)]
    public void ReadAndWrite_LargerThanAPiece_AreTheSame(params int[] cuts)
    {
        _driver.Dispose();
        using var image = new Image(6 << 20);
        _driver = new BlockDriver(Options(image));
        byte[] data = Random(4608 * 1024);
        Assert.That(_driver.Do(BlockDriver.Out, 9, data, 0, [16, .. cuts], [1]).Status, Is.EqualTo(BlockDriver.Ok));
        Assert.That(_driver.Do(BlockDriver.In, 9, default, data.Length, [16], cuts).Data.AsSpan().SequenceEqual(data));
        Assert.That(image.Content.AsSpan(9 * Sector, data.Length).SequenceEqual(data));
        Assert.That(image.Content.AsSpan(9 * Sector + data.Length).SequenceEqual(image.Original.AsSpan(9 * Sector + data.Length)));
        Close();
    }

    [TestCase(2048UL, 512)]
    [TestCase(2047UL, 1024)]
    [TestCase(0UL, (1 << 20) + 512)]
    [TestCase(0x7FFFFFFFFFFFFFUL, 512)]
    [TestCase(0x80000000000000UL, 512)]
    [TestCase(ulong.MaxValue, 512)]
    [TestCase(ulong.MaxValue - 7, 4096)]
    [TestCase(0UL, 511)]
    [TestCase(0UL, 513)]
    public void ReadAndWrite_NotWhollyInTheDisk_AreErrors(ulong sector, int length)
    {
        BlockAnswer answer = _driver.Do(BlockDriver.In, sector, room: length);
        Assert.That(answer.Status, Is.EqualTo(BlockDriver.IoError));
        Assert.That(answer.Data, Is.All.EqualTo(0xEE), "nothing was read");
        Assert.That(_driver.Do(BlockDriver.Out, sector, Random(length)).Status, Is.EqualTo(BlockDriver.IoError));
        Assert.That(_image.Content, Is.EqualTo(_image.Original));
    }

    [Test]
    public void ReadAndWrite_LastSector_Succeed()
    {
        byte[] data = Random(Sector);
        Assert.That(_driver.Do(BlockDriver.Out, 2047, data).Status, Is.EqualTo(BlockDriver.Ok));
        Assert.That(_driver.Do(BlockDriver.In, 2047, room: Sector).Data, Is.EqualTo(data));
    }

    [Test]
    public void ReadAndWrite_Nothing_Succeed()
    {
        Assert.That(_driver.Do(BlockDriver.In, 5).Status, Is.EqualTo(BlockDriver.Ok));
        Assert.That(_driver.Do(BlockDriver.Out, 5).Status, Is.EqualTo(BlockDriver.Ok));
    }

    [Test]
    public void Read_FileThatHasBecomeShorter_IsAnError()
    {
        using (var file = new FileStream(_image.Path, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite))
            file.SetLength(4096);
        Assert.That(_driver.Do(BlockDriver.In, 0, room: 4096).Status, Is.EqualTo(BlockDriver.Ok));
        Assert.That(_driver.Do(BlockDriver.In, 8, room: 4096).Status, Is.EqualTo(BlockDriver.IoError));
        Assert.That(_driver.Do(BlockDriver.In, 0, room: 8192).Status, Is.EqualTo(BlockDriver.IoError));
    }

    [Test]
    public void Request_AsManyBuffersAsAnnounced_IsServed()
    {
        _driver.Dispose();
        _driver = new BlockDriver(Options(_image), size: 256);
        int[] cuts = [.. Enumerable.Repeat(Sector, 126)];
        Assert.That(_driver.Do(BlockDriver.In, 0, room: 126 * Sector, writableCuts: cuts).Data, Is.EqualTo(_image.Original[..(126 * Sector)]));
        cuts = [.. Enumerable.Repeat(Sector, 200)];
        Assert.That(_driver.Do(BlockDriver.In, 0, room: 200 * Sector, writableCuts: cuts).Status, Is.EqualTo(BlockDriver.IoError));
    }

    // QEMU's queue-size=64 leaves seg_max as the back-end says it, and Linux fills an indirect table up to that.
    [Test]
    public void Request_TableLargerThanTheRing_IsServed([Values(64, 16)] int size, [Values(82, 126)] int pages)
    {
        _driver.Dispose();
        _driver = new BlockDriver(Options(_image), size);
        int[] cuts = [.. Enumerable.Repeat(4096, pages)];
        byte[] data = Random(pages * 4096);
        Assert.That(_driver.Do(BlockDriver.Out, 8, data, 0, [16, .. cuts], [1], indirect: true).Status, Is.EqualTo(BlockDriver.Ok));
        Assert.That(_driver.Do(BlockDriver.In, 8, default, data.Length, [16], cuts, indirect: true).Data, Is.EqualTo(data));
    }

    [TestCase(2U)]
    [TestCase(3U)]
    [TestCase(9U)]
    [TestCase(14U)]
    [TestCase(0x80000000U)]
    [TestCase(uint.MaxValue)]
    public void Request_OfUnknownType_IsUnsupported(uint type)
    {
        BlockAnswer answer = _driver.Do(type, 0, Random(512), 512);
        Assert.That(answer.Status, Is.EqualTo(BlockDriver.Unsupported));
        Assert.That(answer.Written, Is.EqualTo(1));
    }

    [Test]
    public void Request_WithHalfAHeader_IsAnError()
    {
        _driver.AddRaw(new byte[15], 1, [], []);
        Assert.That(_driver.Take().Answer.Status, Is.EqualTo(BlockDriver.IoError));
        _driver.AddRaw([], 513, [], []);
        Assert.That(_driver.Take().Answer.Status, Is.EqualTo(BlockDriver.IoError));
    }

    [Test]
    public void Request_WithoutStatus_ComesBackUnanswered()
    {
        _driver.AddRaw(new byte[16], 0, [], []);
        Assert.That(_driver.Take().Answer.Written, Is.Zero);
        Assert.That(_driver.Do(BlockDriver.In, 0, room: 512).Status, Is.EqualTo(BlockDriver.Ok), "and the next is served");
    }

    [Test]
    public void Flush_Succeeds()
    {
        _driver.Do(BlockDriver.Out, 0, Random(512));
        BlockAnswer answer = _driver.Do(BlockDriver.Flush, 0);
        Assert.That((answer.Status, answer.Written), Is.EqualTo((BlockDriver.Ok, 1U)));
    }

    [Test]
    public void Flush_AfterOneThatFailed_NeverSucceedsAgain()
    {
        // What is not whole blocks of the file system is zeroed in the page cache, past it or not.
        Assert.That(_driver.Do(BlockDriver.WriteZeroes, new SectorRange(1, 1)).Status, Is.EqualTo(BlockDriver.Ok));
        _driver.Device.Image.EndFlush(-Errnos.Eio);
        Assert.That(_driver.Do(BlockDriver.Flush, 0).Status, Is.EqualTo(BlockDriver.IoError));
        Assert.That(_driver.Do(BlockDriver.Flush, 0).Status, Is.EqualTo(BlockDriver.IoError));
        Assert.That(_driver.Do(BlockDriver.Out, 0, Random(512)).Status, Is.EqualTo(BlockDriver.Ok), "a write promises nothing yet");
    }

    // The kernel forgets about pages that it could not write, and about nothing else.
    [Test]
    public void Flush_AfterOneThatFailedPastThePageCache_MaySucceed()
    {
        Assert.That(_driver.Device.Image.EndFlush(-Errnos.Eio), Is.False);
        Assert.That(_driver.Do(BlockDriver.Flush, 0).Status, Is.EqualTo(direct && directory is null ? BlockDriver.Ok : BlockDriver.IoError), "tmpfs may use the page cache all the same");
    }

    // What shows that a write was followed by a flush is that it fails when flushes do.
    [Test]
    public void Write_DriverWithoutFlush_IsOnTheDisk()
    {
        _driver.Dispose();
        _driver = new BlockDriver(Options(_image), without: BlockFeatures.Flush | BlockFeatures.WriteCacheSwitch);
        Assert.That(_driver.Do(BlockDriver.Out, 0, Random(4096)).Status, Is.EqualTo(BlockDriver.Ok));
        Assert.That(_driver.Do(BlockDriver.WriteZeroes, new SectorRange(0, 7)).Status, Is.EqualTo(BlockDriver.Ok));
        _driver.Device.Image.EndFlush(-Errnos.Eio);
        Assert.That(_driver.Do(BlockDriver.Out, 0, Random(4096)).Status, Is.EqualTo(BlockDriver.IoError));
        Assert.That(_driver.Do(BlockDriver.WriteZeroes, new SectorRange(0, 8)).Status, Is.EqualTo(BlockDriver.IoError));
        Assert.That(_driver.Do(BlockDriver.In, 0, room: 512).Status, Is.EqualTo(BlockDriver.Ok));
    }

    [Test]
    public void Write_CacheSwitchedOff_IsOnTheDisk()
    {
        Assert.That(_driver.Do(BlockDriver.WriteZeroes, new SectorRange(0, 7)).Status, Is.EqualTo(BlockDriver.Ok), "now a flush that fails fails for ever");
        Assert.That(_driver.Device.WriteConfig(32, [0]), Is.True);
        _driver.Device.Image.EndFlush(-Errnos.Eio);
        Assert.That(_driver.Do(BlockDriver.Out, 0, Random(4096)).Status, Is.EqualTo(BlockDriver.IoError));
        Assert.That(_driver.Device.WriteConfig(32, [1]), Is.True);
        Assert.That(_driver.Do(BlockDriver.Out, 0, Random(4096)).Status, Is.EqualTo(BlockDriver.Ok));
    }

    [Test]
    public void GetId_OfASerial_IsIt([Values(20, 512, 5)] int room)
    {
        _driver.Dispose();
        _driver = new BlockDriver(Options(_image) with { Serial = "disk-0123" });
        BlockAnswer answer = _driver.Do(BlockDriver.GetId, 0, room: room);
        byte[] id = new byte[20];
        Encoding.ASCII.GetBytes("disk-0123").CopyTo(id, 0);
        int length = Math.Min(room, 20);
        Assert.That(answer.Status, Is.EqualTo(BlockDriver.Ok));
        Assert.That(answer.Data[..length], Is.EqualTo(id[..length]));
        Assert.That(answer.Written, Is.EqualTo(length + 1));
    }

    [Test]
    public void Discard_LeavesAHole()
    {
        long before = _image.Allocated;
        Assert.That(_driver.Do(BlockDriver.Discard, new SectorRange(512, 1024)).Status, Is.EqualTo(BlockDriver.Ok));
        AssertChanged(512 * Sector, new byte[1024 * Sector]);
        Assert.That(before - _image.Allocated, Is.EqualTo(1024 * Sector), "bytes given back");
    }

    [Test]
    public void WriteZeroes_AsTheyMayBeUnmapped_LeavesAHoleOrRoom([Values] bool unmap)
    {
        long before = _image.Allocated;
        Assert.That(_driver.Do(BlockDriver.WriteZeroes, new SectorRange(512, 1024, unmap ? 1U : 0)).Status, Is.EqualTo(BlockDriver.Ok));
        AssertChanged(512 * Sector, new byte[1024 * Sector]);
        Assert.That(before - _image.Allocated, Is.EqualTo(unmap ? 1024 * Sector : 0), "bytes given back");
    }

    [Test]
    public void DiscardAndWriteZeroes_OfSeveralRanges_AreDone([Values(BlockDriver.Discard, BlockDriver.WriteZeroes)] uint type)
    {
        Assert.That(_driver.Do(type, new SectorRange(8, 8), new SectorRange(0, 0), new SectorRange(2040, 8), new SectorRange(24, 16)).Status,
            Is.EqualTo(BlockDriver.Ok));
        byte[] expected = [.. _image.Original];
        expected.AsSpan(8 * Sector, 8 * Sector).Clear();
        expected.AsSpan(2040 * Sector, 8 * Sector).Clear();
        expected.AsSpan(24 * Sector, 16 * Sector).Clear();
        Assert.That(_image.Content, Is.EqualTo(expected));
    }

    private static IEnumerable<TestCaseData> BadRanges()
    {
        SectorRange good = new(0, 8);
        yield return new TestCaseData(BlockDriver.Bytes([good, new(2048, 1)]), BlockDriver.IoError).SetArgDisplayNames("behind the end");
        yield return new TestCaseData(BlockDriver.Bytes([good, new(2041, 8)]), BlockDriver.IoError).SetArgDisplayNames("over the end");
        yield return new TestCaseData(BlockDriver.Bytes([good, new(ulong.MaxValue, 2)]), BlockDriver.IoError).SetArgDisplayNames("wraps");
        yield return new TestCaseData(BlockDriver.Bytes([good, new(0, uint.MaxValue)]), BlockDriver.IoError).SetArgDisplayNames("too many sectors");
        yield return new TestCaseData(BlockDriver.Bytes([good, new(8, 8, 2)]), BlockDriver.Unsupported).SetArgDisplayNames("unknown flag");
        yield return new TestCaseData(BlockDriver.Bytes([good])[..15], BlockDriver.IoError).SetArgDisplayNames("half a range");
        yield return new TestCaseData(Array.Empty<byte>(), BlockDriver.IoError).SetArgDisplayNames("no range");
        yield return new TestCaseData(BlockDriver.Bytes([.. Enumerable.Repeat(good, 17)]), BlockDriver.IoError).SetArgDisplayNames("too many");
    }

    [TestCaseSource(nameof(BadRanges))]
    public void DiscardAndWriteZeroes_OfRangesThatCannotBe_ChangeNothing(byte[] data, byte status)
    {
        Assert.That(_driver.Do(BlockDriver.Discard, 0, data).Status, Is.EqualTo(status));
        Assert.That(_driver.Do(BlockDriver.WriteZeroes, 0, data).Status, Is.EqualTo(status));
        Assert.That(_image.Content, Is.EqualTo(_image.Original));
    }

    [Test]
    public void Discard_WithTheFlagOfWriteZeroes_IsUnsupported() =>
        Assert.That(_driver.Do(BlockDriver.Discard, new SectorRange(0, 8, 1)).Status, Is.EqualTo(BlockDriver.Unsupported));

    [Test]
    public void DiscardAndWriteZeroes_NotAgreedOn_AreUnsupported()
    {
        _driver.Dispose();
        _driver = new BlockDriver(Options(_image), without: BlockFeatures.Discard | BlockFeatures.WriteZeroes);
        Assert.That(_driver.Do(BlockDriver.Discard, new SectorRange(0, 8)).Status, Is.EqualTo(BlockDriver.Unsupported));
        Assert.That(_driver.Do(BlockDriver.WriteZeroes, new SectorRange(0, 8)).Status, Is.EqualTo(BlockDriver.Unsupported));
        Assert.That(_image.Content, Is.EqualTo(_image.Original));
    }

    [Test]
    public void ReadOnly_AnythingThatWrites_IsAnError()
    {
        _driver.Dispose();
        _driver = new BlockDriver(Options(_image) with { ReadOnly = true });
        Assert.That(_driver.Device.Features & (BlockFeatures.ReadOnly | BlockFeatures.WriteZeroes | BlockFeatures.Discard), Is.EqualTo(BlockFeatures.ReadOnly));
        Assert.That(_driver.Do(BlockDriver.Out, 0, Random(512)).Status, Is.EqualTo(BlockDriver.IoError));
        Assert.That(_driver.Do(BlockDriver.Flush, 0).Status, Is.EqualTo(BlockDriver.Ok));
        Assert.That(_driver.Do(BlockDriver.In, 0, room: 512).Data, Is.EqualTo(_image.Original[..512]));
    }

    // The file is compared with what it should be after many requests at a time; those of a round do not overlap.
    [Test]
    public void ManyRequests_AtRandom_DoWhatTheyShould()
    {
        var random = new Random(5);
        byte[] expected = [.. _image.Original];
        for (int round = 0; round < 60; round++)
        {
            var reads = new Dictionary<ushort, (int Start, int Length)>();
            for (int slot = 0; slot < 16; slot++)
            {
                int start = slot * 128 + random.Next(8) * 8;
                int count = random.Next(1, 9) * (random.Next(2) == 0 ? 8 : 1);
                Span<byte> range = expected.AsSpan(start * Sector, count * Sector);
                switch (random.Next(4))
                {
                    case 0:
                        random.NextBytes(range);
                        _driver.Add(BlockDriver.Out, (ulong)start, range, 0, [16, random.Next(1, range.Length)], [1], indirect: true);
                        break;
                    case 1:
                        range.Clear();
                        _driver.Add(random.Next(2) == 0 ? BlockDriver.Discard : BlockDriver.WriteZeroes, 0,
                            BlockDriver.Bytes([new SectorRange((ulong)start, (uint)count)]));
                        break;
                    default:
                        ushort id = _driver.Add(BlockDriver.In, (ulong)start, default, range.Length, [16], [random.Next(1, range.Length)], indirect: true);
                        reads[id] = (start * Sector, range.Length);
                        break;
                }
            }
            for (int i = 0; i < 16; i++)
            {
                (ushort id, BlockAnswer answer) = _driver.Take();
                Assert.That(answer.Status, Is.EqualTo(BlockDriver.Ok));
                if (reads.TryGetValue(id, out (int Start, int Length) read))
                    Assert.That(answer.Data.AsSpan().SequenceEqual(expected.AsSpan(read.Start, read.Length)), $"round {round}");
            }
        }
        Assert.That(_image.Content.AsSpan().SequenceEqual(expected));
    }

    [Test]
    public void Drain_RequestsUnderWay_ComeBackOrStayInTheRing()
    {
        for (int i = 0; i < 8; i++)
        {
            _driver.Add(BlockDriver.Out, (ulong)(i * 128), Random(65536), 0, [16], [1], indirect: true);
            _driver.Add(BlockDriver.Flush, 0, indirect: true);
        }
        _driver.Ring.Process(_driver.Handler);
        _driver.Handler.Drain(_driver.Ring);
        Assert.That(_driver.Ring.InFlight, Is.Zero);
        int done = 0;
        for (; _driver.TryTake(out (ushort, BlockAnswer Answer) taken); done++)
            Assert.That(taken.Answer.Status, Is.EqualTo(BlockDriver.Ok));
        Assert.That(done + _driver.Ring.Waiting, Is.EqualTo(16));
        for (; done < 16; done++)
            Assert.That(_driver.Take().Answer.Status, Is.EqualTo(BlockDriver.Ok));
        Assert.That(_driver.Do(BlockDriver.In, 0, room: 512).Status, Is.EqualTo(BlockDriver.Ok), "and it goes on");
    }

    private BlockOptions Options(Image image) => new() { Path = image.Path, Direct = direct, Engine = engine };

    private void AssertChanged(int offset, byte[] data)
    {
        byte[] expected = [.. _image.Original];
        data.CopyTo(expected, offset);
        Assert.That(_image.Content.AsSpan().SequenceEqual(expected));
    }

    private static byte[] Random(int length)
    {
        var data = new byte[length];
        new Random(length).NextBytes(data);
        return data;
    }
}
