using System.Buffers.Binary;
using System.Diagnostics;
using NUnit.Framework;
using Vmm.Devices.Backends.Block;
using Vmm.Vhost;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Devices.Backends.Block;

/// <summary>A block device of the host's, a loop device, in the place of an image.</summary>
public sealed class BlockDeviceFileTests
{
    private Image _image = null!;
    private string _device = "";

    [SetUp]
    public void Attach()
    {
        _image = new Image();
        (int status, string output) = Run("losetup", "--find", "--show", _image.Path);
        if (status != 0)
        {
            _image.Dispose();
            Assert.Ignore($"no loop device to be had: {output}");
        }
        _device = output.Trim();
    }

    [TearDown]
    public void Detach()
    {
        if (_device.Length == 0)
            return;
        Run("losetup", "--detach", _device);
        _image.Dispose();
        _device = "";
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

    private static (int Status, string Output) Run(string program, params string[] arguments)
    {
        try
        {
            using Process process = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true })!;
            string output = process.StandardOutput.ReadToEnd() + process.StandardError.ReadToEnd();
            process.WaitForExit();
            return (process.ExitCode, output);
        }
        catch (System.ComponentModel.Win32Exception e)
        {
            return (-1, e.Message);
        }
    }
}
