using NUnit.Framework;
using Vmm.Tests.Examples;
using Vmm.Tests.Fakes;
using Vmm.Tests.Integration.Linux.Devices;
using Vmm.Tests.User.Frontend;
using Vmm.Vhost.Memory;
using Vmm.Vhost.User.Frontend;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Tests.Conformance;

/// <summary>The front-end and qemu-storage-daemon, one request at a time: rings that stop and start, and a daemon that ends and comes back.</summary>
public sealed class StorageDaemonRestartTests : PeerTest
{
    private const int SectorSize = 512;
    private const int Sectors = 1024;

    private readonly byte[] _contents = Contents();
    private HostDaemon? _daemon;

    private string Socket => Path.Combine(Scratch, "blk.sock");

    [SetUp]
    public void SetUp()
    {
        Require(StorageDaemon);
        string image = Path.Combine(Scratch, "disk");
        File.WriteAllBytes(image, _contents);
        _daemon = HostDaemon.Disk(Socket, image, _contents.Length);
    }

    [TearDown]
    public void TearDown() => _daemon?.Dispose();

    [Test]
    public void Example_Sector_IsRead()
    {
        Assert.That(ReadSector.Read(Socket, 7), Is.EqualTo(_contents[(7 * SectorSize)..(8 * SectorSize)]));
        Assert.That(ReadSector.Read(Socket, 0), Is.EqualTo(_contents[..SectorSize]), "and again, over another connection");
    }

    [Test]
    public void Reset_AndStartAgain_GoesOnOverTheSameConnection()
    {
        using var fixture = new FrontendFixture(Socket);
        fixture.Options = fixture.Options with { ConfigSize = 60 };
        VhostUserFrontend frontend = fixture.Open();
        byte[] config = new byte[60];
        frontend.ReadConfig(config);
        Assert.That(BitConverter.ToUInt64(config), Is.EqualTo(Sectors));
        Assert.That(frontend.MaxRingCount, Is.EqualTo(2));
        for (int i = 0; i < 5; i++)
        {
            fixture.StartAll();
            Read(fixture, fixture.Rings[i % 2], i);
            lock (fixture.Sync)
            {
                Assert.That(frontend.Stop(i % 2), Is.EqualTo(fixture.Rings[i % 2].UsedIndex));
                frontend.Stop(1 - i % 2);
                frontend.Start([fixture.Rings[i % 2].Config with { Base = fixture.Rings[i % 2].UsedIndex }]);
            }
            Read(fixture, fixture.Rings[i % 2], i + 1);
            lock (fixture.Sync)
                frontend.Reset();
            fixture.ClearRings();
        }
        Assert.That(frontend.IsConnected);
        Assert.That(fixture.Told, Is.Empty);
    }

    [Test]
    public void Kill_TwentyTimesAtDepthOne_EveryRequestIsAnsweredOnce()
    {
        using var fixture = new FrontendFixture(Socket);
        fixture.Options = fixture.Options with { ConfigSize = 60 };
        fixture.Open();
        fixture.StartAll();
        SplitVirtqueueDriver ring = fixture.Rings[0];
        ushort requests = 0;
        for (int i = 0; i < 20; i++)
        {
            for (int sector = 0; sector < 10; sector++)
            {
                Read(fixture, ring, (i * 10) + sector);
                requests++;
            }
            _daemon!.Kill();
            // Asked while it is away, or before anybody has noticed.
            var restart = new Thread(_daemon!.Start);
            restart.Start();
            Read(fixture, ring, i);
            requests++;
            restart.Join();
        }
        Assert.That(ring.UsedIndex, Is.EqualTo(requests));
        // It may have died once more before it was told everything: the first ring is worked before the second is configured.
        Assert.That(fixture.Told.Count(told => told.StartsWith("disconnected", StringComparison.Ordinal)), Is.GreaterThanOrEqualTo(20));
        Eventually.True(() => fixture.Told.Last() == "restored", () => string.Join(", ", fixture.Told));
        Assert.That(ring.FreeDescriptors, Is.EqualTo(FrontendFixture.RingSize));
    }

    [Test]
    public void Kill_Idle_IsBackSoonAfterItListensAgain()
    {
        using var fixture = new FrontendFixture(Socket);
        fixture.Options = fixture.Options with { ConfigSize = 60 };
        fixture.Open();
        fixture.StartAll();
        _daemon!.Kill();
        fixture.WaitFor("disconnected");
        _daemon!.Start();
        fixture.WaitFor("restored");
        Read(fixture, fixture.Rings[1], 3);
    }

    private void Read(FrontendFixture fixture, SplitVirtqueueDriver ring, int sector)
    {
        GuestMemory memory = fixture.Memory;
        GuestAddress header = new(0x8000), status = new(0x8010), data = new(0x9000);
        memory.Write(header, 0U);
        memory.Write(header + 8, (ulong)sector);
        memory.Write(status, (byte)0xFF);
        memory.Slice(data, SectorSize).Clear();
        ushort given = ring.Add([(header, 16)], [(data, SectorSize), (status, 1)]);
        ring.Kick();
        Assert.That(ring.Wait(TimeSpan.FromSeconds(30)), () => $"sector {sector} is not read; {string.Join(", ", fixture.Told)}");
        Assert.That(ring.TryTake(out ushort head, out uint written));
        Assert.That((head, written, memory.Read<byte>(status)), Is.EqualTo((given, SectorSize + 1U, (byte)0)));
        Assert.That(memory.Slice(data, SectorSize).SequenceEqual(_contents.AsSpan(sector * SectorSize, SectorSize)), $"sector {sector}");
    }

    private static byte[] Contents()
    {
        byte[] contents = new byte[Sectors * SectorSize];
        new Random(1).NextBytes(contents);
        return contents;
    }
}
