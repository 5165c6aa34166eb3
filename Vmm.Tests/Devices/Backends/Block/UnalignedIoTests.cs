using System.Buffers.Binary;
using NUnit.Framework;
using Vmm.Devices.Backends.Block;
using Vmm.Vhost;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Devices.Backends.Block;

/// <summary>Sectors of 512 bytes past the page cache, of an image that is read and written in blocks of 4096.</summary>
[TestFixture(BlockEngineKind.IoUring)]
[TestFixture(BlockEngineKind.Threads)]
public sealed class UnalignedIoTests(BlockEngineKind engine)
{
    private const int Sector = 512;

    [SetUp]
    public void CheckEngine()
    {
        if (engine == BlockEngineKind.IoUring && IoUring.Probe() != 0)
            Assert.Ignore("no io_uring here");
    }

    // tmpfs says nothing of alignment.
    [Test]
    public void Config_PastThePageCache_IsThatOfTheSameFileThroughIt()
    {
        using Image image = ImageOnTmpfs();
        var configs = new byte[2][];
        for (int i = 0; i < 2; i++)
        {
            using var device = new BlockBackend(new BlockOptions { Path = image.Path, Direct = i == 1, Engine = engine });
            configs[i] = new byte[60];
            device.ReadConfig(configs[i]);
        }
        Assert.That(BinaryPrimitives.ReadUInt32LittleEndian(configs[1].AsSpan(20)), Is.EqualTo(Sector), "blk_size");
        Assert.That(configs[1], Is.EqualTo(configs[0]));
    }

    [Test]
    public void Config_LogicalBlockSize_IsAsAskedFor([Values] bool direct)
    {
        using Image image = ImageOnTmpfs(Image.Size + 3 * Sector);
        using var driver = new BlockDriver(Options(image.Path) with { LogicalBlockSize = 4096, Direct = direct });
        var config = new byte[60];
        driver.Device.ReadConfig(config);
        Assert.That(BinaryPrimitives.ReadUInt32LittleEndian(config.AsSpan(20)), Is.EqualTo(4096), "blk_size");
        Assert.That(config[24], Is.Zero, "physical_block_exp");
        Assert.That(BinaryPrimitives.ReadUInt64LittleEndian(config), Is.EqualTo(2048), "capacity: whole blocks");
        Assert.That(driver.Do(BlockDriver.In, 8, room: 4096).Data, Is.EqualTo(image.Original[4096..8192]));
        Assert.That(driver.Do(BlockDriver.In, 1, room: 4096).Status, Is.EqualTo(BlockDriver.IoError));
        Assert.That(driver.Do(BlockDriver.In, 0, room: Sector).Status, Is.EqualTo(BlockDriver.IoError));
        foreach (int size in (int[])[0, 256, 513, 8192])
        {
            Assert.That(() => new BlockBackend(Options(image.Path) with { LogicalBlockSize = size }),
                Throws.InstanceOf<VhostException>().With.Message.Contains("power of two from 512 to 4096"));
        }
    }

    // Neighbours in one block, all under way at a time: none of them may write back what another has just changed.
    [Test]
    public void Write_SectorsOfOneBlockAtATime_AreAllThere([Values] bool ofADevice)
    {
        using Target target = ofADevice ? Target.Device() : new Target(ImageOnTmpfs(), null);
        var random = new Random(11);
        byte[] expected = [.. target.Image.Original];
        using (var driver = new BlockDriver(Options(target.Path) with { LogicalBlockSize = Sector }))
        {
            for (int round = 0; round < 100; round++)
            {
                int place = 16 * random.Next(100);
                int count = 0;
                for (int sector = place; sector < place + 32; count++)
                {
                    int length = Math.Min(random.Next(1, 12), place + 32 - sector);
                    Span<byte> range = expected.AsSpan(sector * Sector, length * Sector);
                    if (random.Next(6) == 0)
                    {
                        range.Clear();
                        driver.Add(BlockDriver.WriteZeroes, 0, BlockDriver.Bytes([new SectorRange((ulong)sector, (uint)length, (uint)random.Next(2))]));
                    }
                    else
                    {
                        random.NextBytes(range);
                        driver.Add(BlockDriver.Out, (ulong)sector, range, indirect: true);
                    }
                    sector += length;
                }
                for (; count > 0; count--)
                    Assert.That(driver.Take().Answer.Status, Is.EqualTo(BlockDriver.Ok));
                Assert.That(driver.Do(BlockDriver.In, (ulong)place + 1, room: 30 * Sector).Data.AsSpan()
                    .SequenceEqual(expected.AsSpan((place + 1) * Sector, 30 * Sector)), $"round {round}");
            }
        }
        Assert.That(target.Image.Content.AsSpan().SequenceEqual(expected));
    }

    [Test]
    public void ReadAndWrite_LargeAndBetweenBlocks_AreTheSame()
    {
        using Target target = Target.Device();
        byte[] data = new byte[600 * 1024 + Sector];
        new Random(2).NextBytes(data);
        byte[] expected = [.. target.Image.Original];
        data.CopyTo(expected, 3 * Sector);
        using (var driver = new BlockDriver(Options(target.Path) with { LogicalBlockSize = Sector }))
        {
            Assert.That(driver.Do(BlockDriver.Out, 3, data, 0, [17, 1000], [1]).Status, Is.EqualTo(BlockDriver.Ok));
            Assert.That(driver.Do(BlockDriver.In, 3, default, data.Length, [16], [5, 70000]).Data.AsSpan().SequenceEqual(data));
            Assert.That(driver.Do(BlockDriver.Discard, new SectorRange(1, 6)).Status, Is.EqualTo(BlockDriver.Ok), "nothing that the device could take");
        }
        Assert.That(target.Image.Content.AsSpan().SequenceEqual(expected));
    }

    // To write the last block whole would make the file longer.
    [Test]
    public void Write_EndOfAFileInsideABlock_LeavesItsSize()
    {
        using Image image = ImageOnTmpfs(Image.Size + 3 * Sector);
        byte[] expected = [.. image.Original];
        using (var driver = new BlockDriver(Options(image.Path)))
        {
            Assert.That(driver.Device.Image.Capacity, Is.EqualTo(2051));
            byte[] data = new byte[8192 + 3 * Sector];
            new Random(4).NextBytes(data);
            Assert.That(driver.Do(BlockDriver.Out, 2048 - 16, data).Status, Is.EqualTo(BlockDriver.Ok));
            data.CopyTo(expected, (2048 - 16) * Sector);
            Assert.That(driver.Do(BlockDriver.Out, 2050, data.AsSpan(0, Sector)).Status, Is.EqualTo(BlockDriver.Ok));
            data.AsSpan(0, Sector).CopyTo(expected.AsSpan(2050 * Sector));
            Assert.That(driver.Do(BlockDriver.In, 2049, room: 2 * Sector).Data, Is.EqualTo(expected[(2049 * Sector)..]));
            Assert.That(driver.Do(BlockDriver.Flush, 0).Status, Is.EqualTo(BlockDriver.Ok));
        }
        Assert.That(image.Content, Has.Length.EqualTo(expected.Length));
        Assert.That(image.Content.AsSpan().SequenceEqual(expected));
    }

    [Test]
    public void Write_FileThatHasBecomeShorter_IsAnErrorAndLeavesItsSize()
    {
        using Image image = ImageOnTmpfs();
        using var driver = new BlockDriver(Options(image.Path));
        using (var file = new FileStream(image.Path, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite))
            file.SetLength(4096);
        Assert.That(driver.Do(BlockDriver.Out, 9, new byte[Sector]).Status, Is.EqualTo(BlockDriver.IoError));
        Assert.That(image.Content, Has.Length.EqualTo(4096));
    }

    private static Image ImageOnTmpfs(int size = Image.Size)
    {
        if (!Directory.Exists("/dev/shm"))
            Assert.Ignore("no tmpfs at /dev/shm");
        var image = new Image(size, "/dev/shm");
        try
        {
            DiskFile.Open(image.Path, readOnly: true, direct: true).Dispose();
            return image;
        }
        catch (ErrnoException e) when (e.Errno == Errnos.Einval)
        {
            image.Dispose();
            Assert.Ignore("this kernel's tmpfs has no O_DIRECT (Linux 6.6)");
            throw;
        }
    }

    private BlockOptions Options(string path) => new() { Path = path, Direct = true, Engine = engine };

    /// <summary>An image, and the loop device of 4096-byte sectors that it may be behind.</summary>
    private sealed record Target(Image Image, LoopDevice? Loop) : IDisposable
    {
        public string Path => Loop?.Path ?? Image.Path;

        public static Target Device()
        {
            var image = new Image();
            if (LoopDevice.TryAttach(image.Path, out LoopDevice? loop, "--sector-size", "4096") is string reason)
            {
                image.Dispose();
                Assert.Ignore($"no loop device to be had: {reason}");
            }
            return new Target(image, loop);
        }

        public void Dispose()
        {
            Loop?.Dispose();
            Image.Dispose();
        }
    }
}
