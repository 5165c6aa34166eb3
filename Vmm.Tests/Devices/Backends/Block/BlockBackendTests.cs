using System.Buffers.Binary;
using System.Collections.Concurrent;
using NUnit.Framework;
using Vmm.Devices.Backends.Block;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Tests.Devices.Backends.Block;

public class BlockBackendTests
{
    [Test]
    public void Config_OfAFile_SaysWhatItIs()
    {
        using var image = new Image();
        using var device = new BlockBackend(new BlockOptions { Path = image.Path, Queues = 3 });
        var config = new byte[device.ConfigSize];
        device.ReadConfig(config);
        Assert.That(config, Has.Length.EqualTo(60));
        Assert.That(BinaryPrimitives.ReadUInt64LittleEndian(config), Is.EqualTo(2048), "capacity");
        Assert.That(BinaryPrimitives.ReadUInt32LittleEndian(config.AsSpan(12)), Is.EqualTo(126), "seg_max");
        Assert.That(BinaryPrimitives.ReadUInt32LittleEndian(config.AsSpan(20)), Is.EqualTo(512), "blk_size");
        Assert.That(config[24], Is.EqualTo(3), "physical_block_exp");
        Assert.That(config[32], Is.EqualTo(1), "writeback");
        Assert.That(BinaryPrimitives.ReadUInt16LittleEndian(config.AsSpan(34)), Is.EqualTo(3), "num_queues");
        Assert.That(BinaryPrimitives.ReadUInt32LittleEndian(config.AsSpan(36)), Is.EqualTo(0x3FFFF8), "max_discard_sectors: whole blocks of 4096");
        Assert.That(BinaryPrimitives.ReadUInt32LittleEndian(config.AsSpan(40)), Is.EqualTo(16), "max_discard_seg");
        Assert.That(BinaryPrimitives.ReadUInt32LittleEndian(config.AsSpan(44)), Is.EqualTo(8), "discard_sector_alignment");
        Assert.That(BinaryPrimitives.ReadUInt32LittleEndian(config.AsSpan(48)), Is.EqualTo(0x3FFFF8), "max_write_zeroes_sectors");
        Assert.That(BinaryPrimitives.ReadUInt32LittleEndian(config.AsSpan(52)), Is.EqualTo(16), "max_write_zeroes_seg");
        Assert.That(config[56], Is.EqualTo(1), "write_zeroes_may_unmap");
    }

    [Test]
    public void WriteConfig_OnlyTheWriteCache_MayChange()
    {
        using var image = new Image();
        using var device = new BlockBackend(new BlockOptions { Path = image.Path });
        var config = new byte[60];
        device.ReadConfig(config);
        Assert.That(device.WriteConfig(32, [0]), Is.False, "before it was agreed on");
        device.FeaturesAccepted(BlockFeatures.Flush | BlockFeatures.WriteCacheSwitch);
        Assert.That(device.WriteConfig(0, config), Is.True, "all as it is");
        Assert.That(device.WriteConfig(32, [2]), Is.False);
        Assert.That(device.WriteConfig(0, [1]), Is.False);
        Assert.That(device.IsWriteThrough, Is.False);

        config[32] = 0;
        Assert.That(device.WriteConfig(0, config), Is.True);
        Assert.That(device.IsWriteThrough, Is.True);
        device.FeaturesAccepted(BlockFeatures.Flush | BlockFeatures.WriteCacheSwitch | VirtioFeatures.LogAll);
        Assert.That(device.IsWriteThrough, Is.True, "a migration that begins does not change it");
        device.Reset();
        Assert.That(device.IsWriteThrough, Is.False);
        device.FeaturesAccepted(BlockFeatures.WriteCacheSwitch);
        Assert.That(device.IsWriteThrough, Is.True, "without flush");
    }

    [TestCase(false, false)]
    [TestCase(false, true)]
    [TestCase(true, false)]
    public void Open_ImageInUse_IsRefused(bool first, bool second)
    {
        using var image = new Image();
        using var device = new BlockBackend(new BlockOptions { Path = image.Path, ReadOnly = first });
        Assert.That(() => new BlockBackend(new BlockOptions { Path = image.Path, ReadOnly = second }), Throws.InstanceOf<VhostException>()
            .With.Message.Contains($"cannot lock {image.Path}").And.Message.Contains("somebody else has it open"));
    }

    [Test]
    public void Open_BothReadOnly_AreServed()
    {
        using var image = new Image();
        var options = new BlockOptions { Path = image.Path, ReadOnly = true };
        using var first = new BlockDriver(options);
        using var second = new BlockDriver(options);
        foreach (BlockDriver driver in new[] { first, second })
        {
            BlockAnswer answer = driver.Do(BlockDriver.In, 0, room: 4096);
            Assert.That(answer.Status, Is.EqualTo(BlockDriver.Ok));
            Assert.That(answer.Data, Is.EqualTo(image.Original[..4096]));
        }
    }

    [Test]
    public void Dispose_GivesTheImageFreeAtOnce()
    {
        using var image = new Image();
        for (int i = 0; i < 10; i++)
        {
            using (var driver = new BlockDriver(new BlockOptions { Path = image.Path, Direct = true }))
                Assert.That(driver.Do(BlockDriver.In, 0, room: 4096).Status, Is.EqualTo(BlockDriver.Ok));
            DiskFile.Open(image.Path, readOnly: false, direct: false, patience: 0).Dispose();
        }
    }

    [TestCase("/nonexistent/disk.img", "cannot open /nonexistent/disk.img: No such file or directory")]
    [TestCase("/dev/null", "/dev/null is neither a file nor a block device")]
    [TestCase("/tmp", "/tmp")]
    [TestCase("null:", "is no size in bytes")]
    [TestCase("null:-5", "is no size in bytes")]
    public void Open_WhatIsNoDisk_SaysSo(string path, string message) =>
        Assert.That(() => new BlockBackend(new BlockOptions { Path = path }), Throws.InstanceOf<VhostException>().With.Message.Contains(message));

    [Test]
    public void Open_QueuesAndSerial_AreLimited()
    {
        Assert.That(() => new BlockBackend(new BlockOptions { Path = "null:512", Queues = 65 }), Throws.InstanceOf<VhostException>().With.Message.Contains("1 to 64"));
        Assert.That(() => new BlockBackend(new BlockOptions { Path = "null:512", Serial = new string('x', 21) }),
            Throws.InstanceOf<VhostException>().With.Message.Contains("at most 20"));
    }

    [Test]
    public void UpdateCapacity_FileThatHasGrown_IsServedToItsNewEnd()
    {
        using var image = new Image();
        using var driver = new BlockDriver(new BlockOptions { Path = image.Path });
        Assert.That(driver.Do(BlockDriver.In, 2048, room: 512).Status, Is.EqualTo(BlockDriver.IoError));
        using (var file = new FileStream(image.Path, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite))
            file.SetLength(2 * Image.Size + 100);
        driver.Device.UpdateCapacity();
        Assert.That(driver.Device.Image.Capacity, Is.EqualTo(4096), "the last 100 bytes are no sector");
        Assert.That(driver.Do(BlockDriver.In, 4095, room: 512).Status, Is.EqualTo(BlockDriver.Ok));
    }

    [Test]
    public void Open_DiscardOff_OffersNone()
    {
        using var image = new Image();
        using var driver = new BlockDriver(new BlockOptions { Path = image.Path, Discard = false });
        var config = new byte[60];
        driver.Device.ReadConfig(config);
        Assert.That(driver.Device.Features & BlockFeatures.Discard, Is.Zero);
        Assert.That(config[36..48], Is.All.Zero, "limits of discards");
        Assert.That(config[56], Is.Zero, "write_zeroes_may_unmap");
        long before = image.Allocated;
        Assert.That(driver.Do(BlockDriver.WriteZeroes, new SectorRange(512, 1024, 1)).Status, Is.EqualTo(BlockDriver.Ok));
        Assert.That(image.Allocated, Is.EqualTo(before), "and no hole is made by another request");
    }

    [Test]
    public void WriteZeroes_SparseFile_StaysSparse()
    {
        using var image = new Image();
        using (var file = new FileStream(image.Path, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite))
            file.SetLength(4 * Image.Size);
        using var driver = new BlockDriver(new BlockOptions { Path = image.Path });
        long before = image.Allocated;
        Assert.That(driver.Do(BlockDriver.WriteZeroes, new SectorRange(512, 4096)).Status, Is.EqualTo(BlockDriver.Ok));
        Assert.That(image.Allocated, Is.LessThan(before), "bytes that the file takes");
        Assert.That(image.Content.AsSpan(512 * 512, 4096 * 512).ContainsAnyExcept((byte)0), Is.False);
    }

    // To see whether holes can be punched, one is punched: behind the end, where whoever has the lock may write at that time.
    [Test]
    public void Locking_ImageOfAnother_IsNotTouched()
    {
        string directory = Directory.CreateTempSubdirectory("vmm-test-").FullName;
        try
        {
            using var image = new Image(directory: directory);
            using var watcher = new FileSystemWatcher(directory) { NotifyFilter = NotifyFilters.LastWrite };
            var changed = new ConcurrentQueue<string>();
            watcher.Changed += (_, e) => changed.Enqueue(e.FullPath);
            using (DiskFile.Open(image.Path, readOnly: false, direct: false))
            {
                watcher.EnableRaisingEvents = true;
                Assert.That(() => DiskFile.Open(image.Path, readOnly: false, direct: false, patience: 0), Throws.TypeOf<ErrnoException>());
                string last = Path.Combine(directory, "last");
                File.WriteAllText(last, "x");
                Eventually.True(() => changed.Contains(last), () => "nothing is told");
                Assert.That(changed, Does.Not.Contain(image.Path));
            }
            using DiskFile disk = DiskFile.Open(image.Path, readOnly: false, direct: false);
            if (disk.CanDiscard)
                Eventually.True(() => changed.Contains(image.Path), () => "it could not be seen");
        }
        finally
        {
            Directory.Delete(directory, recursive: true);
        }
    }

    [Test]
    public void Locking_Deferred_FollowsTheGuestThatMoves()
    {
        using var image = new Image();
        var options = new BlockOptions { Path = image.Path };
        using var source = new BlockBackend(options);
        using var destination = new BlockBackend(options with { Locking = BlockLocking.Deferred });
        Assert.That(() => new BlockBackend(options), Throws.InstanceOf<VhostException>(), "nobody else may come in");

        source.Image.BeginUse();
        Assert.That(destination.Image.BeginUse, Throws.InstanceOf<VhostException>().With.Message.Contains("somebody else has it open"));
        source.RingStopped(isMigrating: false);
        Assert.That(destination.Image.BeginUse, Throws.InstanceOf<VhostException>(), "a guest that only pauses keeps its disk");

        source.Image.BeginUse();
        source.Image.BeginUse();
        source.RingStopped(isMigrating: true);
        Assert.That(destination.Image.BeginUse, Throws.InstanceOf<VhostException>(), "one of two rings still runs");
        source.RingStopped(isMigrating: true);
        destination.Image.BeginUse();
        Assert.That(source.Image.BeginUse, Throws.InstanceOf<VhostException>(), "it is the destination's now");
    }

    // QEMU begins a migration with the features of before and LOG_ALL, while the rings run.
    [Test]
    public void Locking_FrontEndThatMigrates_FollowsTheGuest([Values] bool isCanceled)
    {
        using var image = new Image();
        using var source = new BlockBackend(new BlockOptions { Path = image.Path });
        using var destination = new BlockBackend(new BlockOptions { Path = image.Path, Locking = BlockLocking.Deferred });
        using FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(source);
        using FrontEndRing ring = frontEnd.Start(BlockFeatures.Flush, protocolFeatures: VhostUserProtocolFeatures.LogShmFd);
        const ulong logSize = (FrontEndDriver.GuestBase + FrontEndDriver.MemorySize) / 4096 / 8;
        using FileDescriptor log = MemFd.Create("log", 0x10000);
        frontEnd.Send(VhostUserRequest.SetLogBase, new LogPayload(logSize, 0), VhostUserFlags.NeedReply, log);
        Assert.That(frontEnd.Receive<ulong>(VhostUserRequest.SetLogBase), Is.Zero);
        ulong features = FrontEndDriver.Features | BlockFeatures.Flush;
        Assert.That(frontEnd.Ask(VhostUserRequest.SetFeatures, features | VirtioFeatures.LogAll), Is.Zero);
        if (isCanceled)
            Assert.That(frontEnd.Ask(VhostUserRequest.SetFeatures, features), Is.Zero);
        ring.Stop();
        if (isCanceled)
            Assert.That(destination.Image.BeginUse, Throws.InstanceOf<VhostException>(), "the guest stays");
        else
            destination.Image.BeginUse();
    }

    // What a file server says that is not there must not be taken for a file system without locks: two would write.
    [TestCase(Errnos.Enolck, true)]
    [TestCase(Errnos.Eopnotsupp, true)]
    [TestCase(Errnos.Enosys, true)]
    [TestCase(Errnos.Einval, true)]
    [TestCase(Errnos.Eio, false)]
    [TestCase(Errnos.Enomem, false)]
    [TestCase(Errnos.Eperm, false)]
    [TestCase(116, false, Description = "ESTALE")]
    public void Locking_Error_SaysWhetherThereAreLocks(int errno, bool isMissing) => Assert.That(DiskLock.IsMissing(errno), Is.EqualTo(isMissing));

    [Test]
    public void Locking_FlushThatFailed_KeepsTheLock()
    {
        using var image = new Image();
        using var source = new BlockBackend(new BlockOptions { Path = image.Path });
        using var destination = new BlockBackend(new BlockOptions { Path = image.Path, Locking = BlockLocking.Deferred });
        source.Image.BeginUse();
        Assert.That(source.Image.EndFlush(-Errnos.Eio), Is.False);
        source.RingStopped(isMigrating: true);
        Assert.That(destination.Image.BeginUse, Throws.InstanceOf<VhostException>(), "what the guest wrote may be lost");
    }

    // tmpfs has holes, but cannot zero what is not to become one.
    [Test]
    public void WriteZeroes_FileSystemThatCannot_WritesThem([Values(BlockEngineKind.IoUring, BlockEngineKind.Threads)] BlockEngineKind engine)
    {
        if (engine == BlockEngineKind.IoUring && IoUring.Probe() != 0)
            Assert.Ignore("no io_uring here");
        if (!Directory.Exists("/dev/shm"))
            Assert.Ignore("no tmpfs at /dev/shm");
        const int size = 32 << 20;
        using var image = new Image(size, "/dev/shm");
        using var driver = new BlockDriver(new BlockOptions { Path = image.Path, Engine = engine });
        BlockAnswer answer = driver.Do(BlockDriver.WriteZeroes, new SectorRange(8, 9 * 2048 + 3), new SectorRange(40000, 1), new SectorRange(50000, 100, 1));
        Assert.That(answer.Status, Is.EqualTo(BlockDriver.Ok));
        byte[] expected = [.. image.Original];
        expected.AsSpan(8 * 512, (9 * 2048 + 3) * 512).Clear();
        expected.AsSpan(40000 * 512, 512).Clear();
        expected.AsSpan(50000 * 512, 100 * 512).Clear();
        Assert.That(image.Content.AsSpan().SequenceEqual(expected));
    }

    [Test]
    public void NullDevice_AnswersEverything()
    {
        using var driver = new BlockDriver(new BlockOptions { Path = "null:1048576" });
        BlockAnswer answer = driver.Do(BlockDriver.In, 2040, room: 4096);
        Assert.That((answer.Status, answer.Written), Is.EqualTo((BlockDriver.Ok, 4097U)));
        Assert.That(driver.Do(BlockDriver.Out, 0, new byte[4096]).Status, Is.EqualTo(BlockDriver.Ok));
        Assert.That(driver.Do(BlockDriver.Flush, 0).Status, Is.EqualTo(BlockDriver.Ok));
        Assert.That(driver.Do(BlockDriver.Discard, new SectorRange(0, 8)).Status, Is.EqualTo(BlockDriver.Ok));
        Assert.That(driver.Do(BlockDriver.In, 2048, room: 512).Status, Is.EqualTo(BlockDriver.IoError));
    }

    [TestCase(BlockEngineKind.IoUring, false)]
    [TestCase(BlockEngineKind.IoUring, true)]
    [TestCase(BlockEngineKind.Threads, true)]
    public void Requests_AllocateNothing(BlockEngineKind engine, bool direct)
    {
        if (engine == BlockEngineKind.IoUring && IoUring.Probe() != 0)
            Assert.Ignore("no io_uring here");
        using var image = new Image();
        using var driver = new BlockDriver(new BlockOptions { Path = image.Path, Engine = engine, Direct = direct });
        void Round()
        {
            for (int i = 0; i < 8; i++)
            {
                driver.Add(BlockDriver.In, (ulong)i, default, 4096);
                driver.Add(BlockDriver.Out, 1024, new byte[4096], indirect: true);
            }
            driver.Add(BlockDriver.Flush, 0);
            driver.Add(BlockDriver.Discard, 0, BlockDriver.Bytes([new SectorRange(2000, 8)]));
        }
        // Each slot has its room for ranges and for data that is not aligned, once it has had some.
        for (int i = 0; i < driver.Ring.Size; i++)
            driver.Add(BlockDriver.Discard, 0, BlockDriver.Bytes([new SectorRange(2000, 8)]), indirect: true);
        for (int i = 0; i < driver.Ring.Size; i++)
            driver.Take();
        for (int i = 0; i < driver.Ring.Size; i++)
            driver.Add(BlockDriver.Out, 1024, new byte[4096], indirect: true);
        for (int i = 0; i < driver.Ring.Size; i++)
            driver.Take();
        // What the driver allocates does not count. What a slot allocates at its first use does not, either, and when that is depends on how fast the disk is. So a
        // number of rounds in a row must allocate nothing.
        const int enough = 20;
        int quiet = 0;
        for (int round = 0; round < 500 && quiet < enough; round++)
        {
            Round();
            long before = GC.GetAllocatedBytesForCurrentThread();
            do
            {
                driver.Ring.Process(driver.Handler);
                driver.Handler.Drain(driver.Ring);
            }
            while (driver.Ring.Waiting > 0);
            quiet = GC.GetAllocatedBytesForCurrentThread() == before ? quiet + 1 : 0;
            while (driver.TryTake(out (ushort, BlockAnswer Answer) taken))
                Assert.That(taken.Answer.Status, Is.EqualTo(BlockDriver.Ok));
            Assert.That(driver.Ring.InFlight, Is.Zero);
        }
        Assert.That(quiet, Is.EqualTo(enough), "rounds without an allocation");
    }

    // A driver that never lets up must not keep the ring's thread from being told to stop.
    [Test]
    public void Process_DriverThatGoesOnAndOn_ReturnsAllTheSame()
    {
        using var driver = new BlockDriver(new BlockOptions { Path = "null:1048576" });
        using var stop = new CancellationTokenSource();
        driver.Add(BlockDriver.In, 0, default, 512);
        var guest = new Thread(() =>
        {
            while (!stop.IsCancellationRequested)
            {
                if (driver.TryTake(out _) || driver.Queue.Free > 40)
                    driver.Add(BlockDriver.In, 0, default, 512, indirect: true);
            }
        });
        guest.Start();
        var turns = Task.Run(() =>
        {
            for (int i = 0; i < 20; i++)
                driver.Ring.Process(driver.Handler);
        });
        Assert.That(turns.Wait(TimeSpan.FromSeconds(30)), Is.True);
        stop.Cancel();
        guest.Join();
    }

    [Test]
    public void Served_ToAFrontEnd_ReadsAndWrites([Values(0UL, VirtioFeatures.EventIndex, VirtioFeatures.RingPacked | VirtioFeatures.EventIndex)] ulong features)
    {
        using var image = new Image();
        using var device = new BlockBackend(new BlockOptions { Path = image.Path, Queues = 2 });
        using FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(device);
        using FrontEndRing ring = frontEnd.Start(features | BlockFeatures.Flush, protocolFeatures: VhostUserProtocolFeatures.Config);
        for (int i = 0; i < 300; i++)
        {
            var request = new byte[16 + 512];
            request[0] = (byte)(i % 2 == 0 ? 1 : 4);
            request[8] = (byte)(i % 200);
            request.AsSpan(16).Fill((byte)i);
            ring.Add(i % 2 == 0 ? request : request.AsSpan(0, 16), 1);
            (_, uint written, byte[] bytes) = ring.Take();
            Assert.That((written, bytes[0]), Is.EqualTo((1U, BlockDriver.Ok)));
            request[0] = 0;
            ring.Add(request.AsSpan(0, 16), 513);
            (_, written, bytes) = ring.Take();
            Assert.That((written, bytes[^1]), Is.EqualTo((513U, BlockDriver.Ok)));
            if (i % 2 == 0)
                Assert.That(bytes[..512], Is.All.EqualTo((byte)i));
        }
        ring.Stop();
    }
}
