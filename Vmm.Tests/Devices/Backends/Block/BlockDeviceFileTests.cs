using System.Buffers.Binary;
using NUnit.Framework;
using Vmm.Devices.Backends.Block;
using Vmm.Vhost;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Devices.Backends.Block;

/// <summary>A block device of the host's, a loop device, in the place of an image.</summary>
public sealed class BlockDeviceFileTests
{
    private Image _image = null!;
    private LoopDevice _loop = null!;
    private string _device = "";

    [SetUp]
    public void Attach() => Attach([]);

    private void Attach(string[] options)
    {
        _image = new Image();
        if (LoopDevice.TryAttach(_image.Path, out LoopDevice? loop, options) is string reason)
        {
            _image.Dispose();
            Assert.Ignore($"no loop device to be had: {reason}");
        }
        _loop = loop!;
        _device = _loop.Path;
    }

    [TearDown]
    public void Detach()
    {
        _loop?.Dispose();
        _image.Dispose();
    }

    [Test]
    public void Requests_OfABlockDevice_ReachIt(
        [Values(BlockEngineKind.IoUring, BlockEngineKind.Threads)] BlockEngineKind engine, [Values] bool direct)
    {
        if (engine == BlockEngineKind.IoUring && IoUring.Probe() != 0)
            Assert.Ignore("no io_uring here");
        byte[] data = new byte[8192];
        new Random(3).NextBytes(data);
        byte[] expected = [.. _image.Original];
        using (var driver = new BlockDriver(new BlockOptions { Path = _device, Engine = engine, Direct = direct }))
        {
            var config = new byte[60];
            driver.Device.ReadConfig(config);
            Assert.That(BinaryPrimitives.ReadUInt64LittleEndian(config), Is.EqualTo(2048), "capacity");
            Assert.That(driver.Device.Features & BlockFeatures.Discard, Is.Not.Zero);
            Assert.That(BinaryPrimitives.ReadUInt32LittleEndian(config.AsSpan(44)), Is.GreaterThan(0), "discard_sector_alignment");

            Assert.That(driver.Do(BlockDriver.Out, 16, data).Status, Is.EqualTo(BlockDriver.Ok));
            data.CopyTo(expected, 16 * 512);
            Assert.That(driver.Do(BlockDriver.In, 17, room: 1024).Data, Is.EqualTo(data[512..1536]));
            Assert.That(driver.Do(BlockDriver.Discard, new SectorRange(512, 512)).Status, Is.EqualTo(BlockDriver.Ok));
            Assert.That(driver.Do(BlockDriver.WriteZeroes, new SectorRange(1024, 64), new SectorRange(1200, 64, 1)).Status, Is.EqualTo(BlockDriver.Ok));
            expected.AsSpan(512 * 512, 512 * 512).Clear();
            expected.AsSpan(1024 * 512, 64 * 512).Clear();
            expected.AsSpan(1200 * 512, 64 * 512).Clear();
            Assert.That(driver.Do(BlockDriver.Flush, 0).Status, Is.EqualTo(BlockDriver.Ok));
        }
        Assert.That(_image.Content.AsSpan().SequenceEqual(expected));
        Assert.That(_image.Allocated, Is.LessThanOrEqualTo(Image.Size - 512 * 512), "what was discarded takes no room");
    }

    [Test]
    public void Open_DeviceInUse_IsRefused()
    {
        using var device = new BlockBackend(new BlockOptions { Path = _device });
        Assert.That(() => new BlockBackend(new BlockOptions { Path = _device }),
            Throws.InstanceOf<VhostException>().With.Message.Contains(_device).And.Message.Contains("in use"));
    }

    // An io_uring of a process that was killed has the device for a moment longer.
    [Test]
    public void Open_DeviceThatIsInUseForAMomentLonger_WaitsForIt()
    {
        var first = new BlockBackend(new BlockOptions { Path = _device });
        var opening = Task.Run(() => DiskFile.Open(_device, readOnly: false, direct: false, patience: 60_000));
        Assert.That(opening.Wait(200), Is.False, () => opening.Exception?.ToString() ?? "it was opened twice");
        first.Dispose();
        Assert.That(opening.Wait(TimeSpan.FromSeconds(60)), Is.True);
        opening.Result.Dispose();
    }

    [Test]
    public void Open_BlocksOf4096_RangesAreWholeBlocks()
    {
        Detach();
        Attach(["--sector-size", "4096"]);
        using var driver = new BlockDriver(new BlockOptions { Path = _device });
        var config = new byte[60];
        driver.Device.ReadConfig(config);
        Assert.That(BinaryPrimitives.ReadUInt32LittleEndian(config.AsSpan(20)), Is.EqualTo(4096), "blk_size");
        foreach (int offset in (int[])[36, 48])
        {
            uint most = BinaryPrimitives.ReadUInt32LittleEndian(config.AsSpan(offset));
            Assert.That((most, most % 8), Is.EqualTo((0x3FFFF8U, 0U)), "the most sectors of a range, with which a driver cuts what is longer");
        }
    }

    [Test]
    public void UpdateCapacity_DeviceThatHasGrown_IsServedToItsNewEnd()
    {
        using var driver = new BlockDriver(new BlockOptions { Path = _device });
        Assert.That(driver.Do(BlockDriver.In, 2048, room: 512).Status, Is.EqualTo(BlockDriver.IoError));
        using (var file = new FileStream(_image.Path, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite))
            file.SetLength(2 * Image.Size);
        _loop.UpdateSize();
        driver.Device.UpdateCapacity();
        Assert.That(driver.Do(BlockDriver.In, 4095, room: 512).Status, Is.EqualTo(BlockDriver.Ok));
    }
}
