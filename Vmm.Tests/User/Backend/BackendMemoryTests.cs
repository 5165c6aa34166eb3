using NUnit.Framework;
using Vmm.Tests.Boot;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;
using Vmm.Vhost.User.Protocol;
using Feature = Vmm.Vhost.User.Protocol.VhostUserProtocolFeatures;
using Request = Vmm.Vhost.User.Protocol.VhostUserRequest;

namespace Vmm.Tests.User.Backend;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class BackendMemoryTests : IDisposable
{
    private const ulong Guest = FrontEndDriver.GuestBase;
    private const ulong User = FrontEndDriver.UserBase;
    private const ulong Size = FrontEndDriver.MemorySize;

    private readonly int _descriptorsBefore = OpenDescriptors.Count;
    private readonly EchoDevice _device = new();
    private readonly FrontEndDriver _frontEnd;

    public BackendMemoryTests() => _frontEnd = FrontEndDriver.ConnectedTo(_device);

    public void Dispose()
    {
        _frontEnd.Dispose();
        OpenDescriptors.AssertBackTo(_descriptorsBefore);
    }

    [Test]
    public void Map_GuestMemory_IsLeftOutOfCoreDumps()
    {
        _frontEnd.Negotiate();
        Assert.That(MappingsLeftOut(), Is.EqualTo(1), "the front-end's");

        _frontEnd.ShareMemory();

        Assert.That(MappingsLeftOut(), Is.EqualTo(2), "and the back-end's");
    }

    // Of the front-end's memory, in this process.
    private int MappingsLeftOut()
    {
        using HeldDescriptor file = _frontEnd.Memory.File.Hold();
        Assert.That(FileTree.GetStatus(in file, out FileStatus status), Is.Zero);
        string[] lines = File.ReadAllLines("/proc/self/smaps");
        return Enumerable.Range(0, lines.Length).Count(i => lines[i].Contains($" {status.Inode} ", StringComparison.Ordinal) && lines[i].Contains("/memfd:", StringComparison.Ordinal)
            && lines.Skip(i).First(line => line.StartsWith("VmFlags:", StringComparison.Ordinal)).Split(' ').Contains("dd"));
    }

    [TestCase(0U, 0U, 1, 1, Description = "no region")]
    [TestCase(1U, 1U, 1, 1, Description = "padding")]
    [TestCase(2U, 0U, 1, 1, Description = "fewer regions than said")]
    [TestCase(1U, 0U, 2, 1, Description = "more")]
    [TestCase(2U, 0U, 2, 1, Description = "fewer descriptors")]
    [TestCase(1U, 0U, 1, 2, Description = "more")]
    [TestCase(uint.MaxValue, 0U, 1, 1, Description = "a count that wraps")]
    public void SetMemTable_Malformed_ClosesTheConnection(uint count, uint padding, int regions, int descriptors)
    {
        _frontEnd.Negotiate();
        byte[] table = [.. FrontEndDriver.Bytes(new MemoryTableHeader(count, padding))];
        for (int i = 0; i < regions; i++)
            table = [.. table, .. FrontEndDriver.Bytes(new MemoryRegionPayload(Guest + (ulong)i * Size, Size, User + (ulong)i * Size, 0))];
        _frontEnd.Send(Request.SetMemTable, table, VhostUserFlags.NeedReply, [.. Enumerable.Repeat(_frontEnd.Memory.File, descriptors)]);
        Assert.That(_frontEnd.IsClosed());
    }

    [TestCase(Guest, 0UL, User, 0UL, Description = "empty")]
    [TestCase(ulong.MaxValue - 0xFFF, 0x1000UL, User, 0UL, Description = "the guest's address wraps")]
    [TestCase(Guest, 0x2000UL, ulong.MaxValue - 0xFFF, 0UL, Description = "the user's address wraps")]
    [TestCase(Guest, 0x2000UL, User, ulong.MaxValue - 0xFFF, Description = "the offset wraps")]
    public void SetMemTable_EmptyOrWraps_ClosesTheConnection(ulong guest, ulong size, ulong user, ulong offset)
    {
        _frontEnd.Negotiate();
        _frontEnd.Send(Request.SetMemTable, _frontEnd.MemoryTable(new MemoryRegionPayload(guest, size, user, offset)), 0, _frontEnd.Memory.File);
        Assert.That(_frontEnd.IsClosed());
    }

    [TestCase(Size + 1, 0UL)]
    [TestCase(Size, 0x1000UL)]
    [TestCase(1UL << 60, 0UL)]
    [TestCase(0x1000UL, Size)]
    public void SetMemTable_LongerThanItsFile_IsRefused(ulong size, ulong offset)
    {
        _frontEnd.Negotiate();
        byte[] table = _frontEnd.MemoryTable(new MemoryRegionPayload(Guest, size, User, offset));
        Assert.That(_frontEnd.Ask(Request.SetMemTable, table, _frontEnd.Memory.File), Is.EqualTo(1));
    }

    [TestCase(0x1000UL, 0UL, Description = "for the guest")]
    [TestCase(0UL, 0x1000UL, Description = "for the front-end")]
    public void SetMemTable_RegionsOverlap_IsRefused(ulong guestOverlap, ulong userOverlap)
    {
        _frontEnd.Negotiate();
        byte[] table = _frontEnd.MemoryTable(
            new MemoryRegionPayload(Guest, Size, User, 0), new MemoryRegionPayload(Guest + Size - guestOverlap, 0x2000, User + Size - userOverlap, 0));
        Assert.That(_frontEnd.Ask(Request.SetMemTable, table, _frontEnd.Memory.File, _frontEnd.Memory.File), Is.EqualTo(1));
    }

    [Test]
    public void SetMemTable_NoFile_IsRefused()
    {
        _frontEnd.Negotiate();
        using var notAFile = new EventFd();
        Assert.That(_frontEnd.Ask(Request.SetMemTable, _frontEnd.MemoryTable(_frontEnd.Region), notAFile), Is.EqualTo(1));
    }

    [Test]
    public void SetMemTable_ReadOnlyFile_IsRefused()
    {
        _frontEnd.Negotiate();
        using var file = new TempFile(new byte[0x1000]);
        using FileDescriptor readOnly = FileDescriptor.Open(file.Path, OpenMode.ReadOnly);
        byte[] table = _frontEnd.MemoryTable(new MemoryRegionPayload(Guest, 0x1000, User, 0));
        Assert.That(_frontEnd.Ask(Request.SetMemTable, table, readOnly), Is.EqualTo(1));
    }

    [Test]
    public void SetMemTable_SecondRegionIsBad_LeavesTheOldTable()
    {
        using FrontEndRing ring = _frontEnd.Start();
        byte[] table = _frontEnd.MemoryTable(_frontEnd.Region, new MemoryRegionPayload(Guest + Size, 0x1000, User + Size, Size));
        Assert.That(_frontEnd.Ask(Request.SetMemTable, table, _frontEnd.Memory.File, _frontEnd.Memory.File), Is.EqualTo(1));
        AssertWorks(ring);
    }

    [Test]
    public void SetMemTable_ThirtyTwoRegions_AreTaken()
    {
        _frontEnd.Negotiate();
        MemoryRegionPayload[] regions =
            [.. Enumerable.Range(0, 32).Select(i => new MemoryRegionPayload(Guest + (ulong)i * 0x2000, 0x1000, User + (ulong)i * 0x2000, (ulong)i * 0x1000))];
        FileDescriptor[] files = [.. Enumerable.Repeat(_frontEnd.Memory.File, 32)];
        Assert.That(_frontEnd.Ask(Request.SetMemTable, _frontEnd.MemoryTable(regions), files), Is.Zero);
    }

    [Test]
    public void SetMemTable_OffsetInAPage_IsMappedThere()
    {
        _frontEnd.Negotiate();
        // All but the first page's half, as some split their memory.
        byte[] table = _frontEnd.MemoryTable(new MemoryRegionPayload(Guest + 0x800, Size - 0x800, User + 0x800, 0x800));
        Assert.That(_frontEnd.Ask(Request.SetMemTable, table, _frontEnd.Memory.File), Is.Zero);
        using FrontEndRing ring = _frontEnd.Ring();
        ring.SetUp();
        ring.Enable(true);
        AssertWorks(ring);
    }

    [Test]
    public void SetMemTable_RingRuns_IsDrainedAndGoesOn()
    {
        _device.Holds = true;
        using FrontEndRing ring = _frontEnd.Start();
        ushort id = ring.Add([1], 1);
        Eventually.True(() => _device.Events.Contains($"held {id}"), () => "the request was not taken");
        // The same memory by another name: addresses in the front-end are others from here on, the ring's too.
        byte[] table = _frontEnd.MemoryTable(_frontEnd.Region);
        _device.Holds = false;
        Assert.That(_frontEnd.Ask(Request.SetMemTable, table, _frontEnd.Memory.File), Is.Zero);
        Assert.That(ring.Queue.TryGetUsed(out _, out _), "it was given back before the table was acknowledged");
        Assert.That(_device.Events, Has.Some.EqualTo("drain 0"));
        Assert.That(_device.Events, Has.None.EqualTo("end"));
        AssertWorks(ring);
    }

    [Test]
    public void RemMemReg_OfARunningRing_StopsItUntilItIsBack()
    {
        _frontEnd.Negotiate(0, Feature.ConfigureMemSlots);
        Assert.That(_frontEnd.Get(Request.GetMaxMemSlots), Is.EqualTo(509));
        var region = new SingleMemoryRegion(0, _frontEnd.Region);
        Assert.That(_frontEnd.Ask(Request.AddMemReg, region, _frontEnd.Memory.File), Is.Zero);
        using FrontEndRing ring = _frontEnd.Ring();
        ring.SetUp();
        ring.Enable(true);
        AssertWorks(ring);

        Assert.That(_frontEnd.Ask(Request.RemMemReg, region, _frontEnd.Memory.File), Is.Zero, "a descriptor that comes along is closed");
        Assert.That(_device.Events, Has.Some.EqualTo("end"));
        ring.Add([7], 1);
        Assert.That(_frontEnd.Ask(Request.AddMemReg, region, _frontEnd.Memory.File), Is.Zero);
        Assert.That(ring.Take().Bytes, Is.EqualTo(new byte[] { 8 }));
    }

    [Test]
    public void RemMemReg_Unknown_IsRefused()
    {
        _frontEnd.Negotiate(0, Feature.ConfigureMemSlots);
        _frontEnd.ShareMemory();
        MemoryRegionPayload region = _frontEnd.Region;
        Assert.That(_frontEnd.Ask(Request.RemMemReg, new SingleMemoryRegion(0, region with { Size = 0x1000 })), Is.EqualTo(1));
        Assert.That(_frontEnd.Ask(Request.RemMemReg, new SingleMemoryRegion(0, region with { GuestAddress = 0 })), Is.EqualTo(1));
        Assert.That(_frontEnd.Ask(Request.RemMemReg, new SingleMemoryRegion(0, region with { MmapOffset = 0x1000 })), Is.Zero, "the offset says nothing");
    }

    [Test]
    public void AddMemReg_OverlapsOrPadded_IsRefused()
    {
        _frontEnd.Negotiate(0, Feature.ConfigureMemSlots);
        _frontEnd.ShareMemory();
        Assert.That(_frontEnd.Ask(Request.AddMemReg, new SingleMemoryRegion(0, _frontEnd.Region), _frontEnd.Memory.File), Is.EqualTo(1));
        _frontEnd.Send(Request.AddMemReg, new SingleMemoryRegion(1, _frontEnd.Region), 0, _frontEnd.Memory.File);
        Assert.That(_frontEnd.IsClosed());
    }

    [Test]
    public void AddMemReg_MoreThanSlots_IsRefused()
    {
        _frontEnd.Negotiate(0, Feature.ConfigureMemSlots);
        for (int i = 0; i <= 509; i++)
        {
            var region = new SingleMemoryRegion(0, new MemoryRegionPayload((ulong)i << 12, 0x1000, (ulong)i << 12, (ulong)i << 12));
            Assert.That(_frontEnd.Ask(Request.AddMemReg, region, _frontEnd.Memory.File), Is.EqualTo(i < 509 ? 0 : 1), $"region {i}");
        }
    }

    private static void AssertWorks(FrontEndRing ring)
    {
        ring.Add([41], 1);
        Assert.That(ring.Take().Bytes, Is.EqualTo(new byte[] { 42 }));
    }
}
