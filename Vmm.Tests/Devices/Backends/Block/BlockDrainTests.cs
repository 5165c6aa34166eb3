using NUnit.Framework;
using Vmm.Devices.Backends.Block;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Backend;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Tests.Devices.Backends.Block;

/// <summary>What a ring takes on at a time, and how soon it can be stopped.</summary>
[TestFixture(BlockEngineKind.IoUring)]
[TestFixture(BlockEngineKind.Threads)]
public sealed class BlockDrainTests(BlockEngineKind engine)
{
    private const int ImageSize = 64 << 20;
    private const int Pieces = ImageSize / BlockRequest.MaxPiece;

    private Image _image = null!;
    private BlockDriver _driver = null!;

    [OneTimeSetUp]
    public void MakeImage()
    {
        int errno = engine == BlockEngineKind.IoUring ? IoUring.Probe() : 0;
        if (errno != 0)
            Assert.Ignore($"no io_uring here (errno {errno}); see /proc/sys/kernel/io_uring_disabled");
        _image = new Image(ImageSize);
    }

    [OneTimeTearDown]
    public void RemoveImage() => _image?.Dispose();

    // Past the page cache: there no operation is done before the ring's thread goes on.
    [SetUp]
    public void Open() => _driver = new BlockDriver(new BlockOptions { Path = _image.Path, Engine = engine, Direct = true }, size: 256);

    [TearDown]
    public void Close() => _driver?.Dispose();

    [Test]
    public void Drain_MayLeave_EndsALargeRequestAtAPiece()
    {
        ushort id = AddLarge();
        _driver.Ring.Process(_driver.Handler);
        _driver.Ring.MayLeave = true;
        _driver.Handler.Drain(_driver.Ring);
        Assert.That(_driver.Ring.InFlight + _driver.Ring.Waiting, Is.EqualTo(1), "nobody has begun it, or it is left");
        Assert.That(_driver.TryTake(out _), Is.False);

        // The next process would have found it in the in-flight log. This one is told to take back its word.
        _driver.Ring.MayLeave = false;
        if (_driver.Ring.InFlight == 1)
            _driver.Ring.PutBack(id);
        Assert.That(_driver.Take().Answer.Status, Is.EqualTo(BlockDriver.Ok));
    }

    [Test]
    public void Drain_MayNotLeave_KeepsNothing()
    {
        AddLarge();
        _driver.Ring.Process(_driver.Handler);
        _driver.Handler.Drain(_driver.Ring);
        Assert.That(_driver.Ring.InFlight, Is.Zero);
        Assert.That(_driver.Take().Answer.Status, Is.EqualTo(BlockDriver.Ok));
    }

    // A slow disk: the engine's threads have begun eight, and the front-end waits for the ring to stop.
    [Test]
    public void Drain_RequestsThatNobodyHasBegun_GoBackIntoTheRing()
    {
        const int count = 100;
        int left = 0;
        for (int round = 0; round < 100 && left == 0; round++)
        {
            for (int i = 0; i < count; i++)
                _driver.Add(BlockDriver.In, (ulong)i * 8, default, 4096, writableCuts: [4096], indirect: true);
            _driver.Ring.Process(_driver.Handler);
            _driver.Handler.Drain(_driver.Ring);
            Assert.That(_driver.Ring.InFlight, Is.Zero);
            left = _driver.Ring.Waiting;
            for (int i = 0; i < count; i++)
                Assert.That(_driver.Take().Answer.Status, Is.EqualTo(BlockDriver.Ok));
            Assert.That(_driver.TryTake(out _), Is.False);
        }
        // What the kernel has cannot be had back.
        Assert.That(left, engine == BlockEngineKind.Threads ? Is.InRange(1, count) : Is.Zero);
    }

    // What a process before this one left is in no ring any more. A front-end that does not keep the in-flight log over the stop knows nothing of it.
    [Test]
    public void Stop_RequestsThatAPredecessorLeft_AreDone()
    {
        const int count = 60;
        using var image = new Image();      // this test's own: the fixture's is locked
        for (int round = 0; round < 20; round++)
        {
            using var device = new BlockBackend(new BlockOptions { Path = image.Path, Engine = engine, Direct = true, Queues = 2 });
            using var lost = new LostRequests(
                count, 0, VhostUserProtocolFeatures.InflightShmFd, size: 128, add: (ring, _) => ring.Add(new byte[16], 513));
            using FrontEndRing again = lost.GiveTo(device);
            again.Enable(true);
            again.Stop();
            for (int i = 0; i < count; i++)
                Assert.That(again.Queue.TryGetUsed(out _, out _), $"round {round}: request {i} is lost");
            Assert.That(again.Queue.TryGetUsed(out _, out _), Is.False, "none twice");
        }
    }

    [Test]
    public void Process_LargeRequests_AreTakenOneByOne()
    {
        const int count = 4;
        for (int i = 0; i < count; i++)
            AddLarge();
        _driver.Ring.Process(_driver.Handler);
        Assert.That(_driver.Ring.InFlight, Is.EqualTo(1), "one has as many bytes as may be under way");
        _driver.Handler.Drain(_driver.Ring);
        Assert.That(_driver.Ring.InFlight, Is.Zero);
        Assert.That(_driver.Ring.Waiting, Is.GreaterThan(0), "a ring is stopped without those that it has not begun");
        for (int i = 0; i < count; i++)
            Assert.That(_driver.Take().Answer.Status, Is.EqualTo(BlockDriver.Ok));
    }

    [Test]
    public void Process_NoBounceBufferLeft_UsesTheRingsOwn()
    {
        var others = new BounceBuffers();
        var taken = new List<NativeBuffer>();
        while (others.TryTake() is NativeBuffer buffer)
            taken.Add(buffer);
        Assert.That(BounceBuffers.Made, Is.EqualTo(BounceBuffers.SharedCount), "so many, whoever wants them");
        try
        {
            for (int i = 0; i < 50; i++)
                _driver.Add(BlockDriver.In, (ulong)i, default, 4096, writableCuts: [1], indirect: true);
            for (int i = 0; i < 50; i++)
            {
                _driver.Ring.Process(_driver.Handler);
                Assert.That(_driver.Ring.InFlight, Is.LessThanOrEqualTo(1));
                (ushort _, BlockAnswer answer) = _driver.Take();
                Assert.That(answer.Status, Is.EqualTo(BlockDriver.Ok));
                Assert.That(answer.Data.AsSpan().SequenceEqual(_image.Original.AsSpan(512 * i, 4096)), $"request {i}");
            }
        }
        finally
        {
            foreach (NativeBuffer buffer in taken)
                others.Return(buffer);
            others.Dispose();
        }
    }

    [Test]
    public void Process_ManyUnalignedRequests_ShareBuffers()
    {
        for (int round = 0; round < 3; round++)
        {
            for (int i = 0; i < 200; i++)
                _driver.Add(BlockDriver.In, (ulong)i, default, 512, writableCuts: [1], indirect: true);
            for (int i = 0; i < 200; i++)
            {
                Assert.That(_driver.Take().Answer.Status, Is.EqualTo(BlockDriver.Ok));
                Assert.That(_driver.Ring.InFlight, Is.LessThanOrEqualTo(BounceBuffers.SharedCount + 1));
            }
        }
    }

    // Descriptors are short when the ring starts: the kernel gives no io_uring.
    [Test]
    public void StartRing_NoIoUringToBeHad_WorksByThreads()
    {
        IRingHandler handler;
        using (new DescriptorLimit(left: 1))
            handler = _driver.Device.StartRing(_driver.Ring);
        using (handler)
        {
            AddLarge();
            Eventually.True(
                () =>
                {
                    _driver.Ring.Process(handler);
                    return _driver.TryTake(out (ushort, BlockAnswer Answer) taken) && taken.Answer.Status == BlockDriver.Ok;
                },
                () => "the request was not served");
            handler.Drain(_driver.Ring);
        }
    }

    [Test]
    public void Process_LargeRanges_DoNotHoldUpOthers()
    {
        using var image = new Image(ImageSize);   // the others read what is in theirs
        _driver.Dispose();
        _driver = new BlockDriver(new BlockOptions { Path = image.Path, Engine = engine, Direct = true }, size: 256);
        for (int i = 0; i < 3; i++)
            _driver.Add(BlockDriver.WriteZeroes, 0, BlockDriver.Bytes([new SectorRange(0, ImageSize / 512)]));
        _driver.Ring.Process(_driver.Handler);
        Assert.That(_driver.Ring.Waiting, Is.Zero, "all were taken");
        for (int i = 0; i < 3; i++)
            Assert.That(_driver.Take().Answer.Status, Is.EqualTo(BlockDriver.Ok));
    }

    // The runtime needs a descriptor to start a thread.
    [Test]
    public void Process_NoThreadToBeHad_WorksAllTheSame()
    {
        using var limit = new DescriptorLimit(left: 1);
        using IRingHandler handler = _driver.Device.StartRing(_driver.Ring);
        AddLarge();
        AddLarge();
        int done = 0;
        // Another thread of this process may give a descriptor back meanwhile: then there is a thread, which takes its time.
        for (long end = Environment.TickCount64 + 10_000; done < 2 && Environment.TickCount64 < end;)
        {
            _driver.Ring.Process(handler);
            while (_driver.TryTake(out (ushort, BlockAnswer Answer) taken) && taken.Answer.Status == BlockDriver.Ok)
                done++;
        }
        limit.Dispose();    // an assertion that fails needs descriptors
        Assert.That(done, Is.EqualTo(2));
        handler.Drain(_driver.Ring);
    }

    private ushort AddLarge() => _driver.AddLarge(BlockDriver.In, 0, BlockRequest.MaxPiece, Pieces);
}
