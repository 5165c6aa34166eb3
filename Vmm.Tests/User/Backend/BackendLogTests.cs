using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;
using Feature = Vmm.Vhost.User.Protocol.VhostUserProtocolFeatures;
using Request = Vmm.Vhost.User.Protocol.VhostUserRequest;

namespace Vmm.Tests.User.Backend;

/// <summary>The dirty log of a migration.</summary>
[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class BackendLogTests : IDisposable
{
    private const ulong LogSize = (FrontEndDriver.GuestBase + FrontEndDriver.MemorySize) / 4096 / 8;

    private readonly FrontEndDriver _frontEnd = FrontEndDriver.ConnectedTo(new EchoDevice());
    private readonly FileDescriptor _file = MemFd.Create("log", 0x10000);
    private readonly MemoryMapping _log;

    public BackendLogTests() => _log = MemoryMapping.Map(_file, 0x10000, MappingAccess.SharedReadWrite);

    public void Dispose()
    {
        _log.Dispose();
        _file.Dispose();
        _frontEnd.Dispose();
    }

    [TestCase(0UL, true, 0UL)]
    [TestCase(0UL, false, 0UL)]
    [TestCase(VirtioFeatures.RingPacked, true, 0UL)]
    [TestCase(VirtioFeatures.EventIndex, true, 0x1003UL, Description = "a log that begins anywhere")]
    public void Log_WhileItIsOn_HasWhatTheDeviceWrote(ulong features, bool logsRing, ulong offset)
    {
        using FrontEndRing ring = _frontEnd.Start(features, 16, Feature.LogShmFd);
        ring.Add([1], 1);
        ring.Take();
        SetLog(offset);
        Assert.That(Pages(offset), Is.Empty, "it is not on");
        Assert.That(_frontEnd.Ask(Request.SetFeatures, FrontEndDriver.Features | features | VirtioFeatures.LogAll), Is.Zero);
        Assert.That(_frontEnd.Ask(Request.SetVringAddr, ring.Address with { Flags = logsRing ? VringAddress.FlagLog : 0 }), Is.Zero);

        ulong room = ring.PageOf(ring.Add([1], 1));
        Assert.That(ring.Take().Bytes, Is.EqualTo(new byte[] { 2 }));
        ring.Stop();
        GuestAddress used = (features & VirtioFeatures.RingPacked) != 0 ? ring.Queue.Layout.DescriptorArea : ring.Queue.Layout.DeviceArea;
        ulong[] pages = Pages(offset);
        Assert.That(pages, Has.Some.EqualTo(room / 4096));
        Assert.That(pages, logsRing ? Has.Some.EqualTo(used.Value / 4096) : Has.None.EqualTo(used.Value / 4096));
        if (logsRing && features != 0)
            Assert.That(pages, Has.Some.EqualTo(ring.Queue.Layout.DeviceArea.Value / 4096), "what says when to kick is written too");
        Assert.That(pages, Has.Length.LessThanOrEqualTo(3));

        // And off again.
        new LogView(_log).Clear();
        Assert.That(_frontEnd.Ask(Request.SetFeatures, FrontEndDriver.Features | features), Is.Zero);
        ring.SetUp(0 | (features & VirtioFeatures.RingPacked) switch { 0 => 2U, _ => PackedDriverQueue.Start | 4 | 4U << 16 });
        ring.Add([1], 1);
        ring.Take();
        ring.Stop();
        Assert.That(Pages(offset), Is.Empty);
    }

    [Test]
    public void Log_TurnedOnWhileARequestIsInFlight_HasWhatItWrites()
    {
        var device = new EchoDevice { Holds = true };
        using FrontEndDriver frontEnd = FrontEndDriver.ConnectedTo(device);
        using FrontEndRing ring = frontEnd.Start(0, 16, Feature.LogShmFd);
        ushort id = ring.Add([1], 1);
        Eventually.True(() => device.Events.Contains($"held {id}"), () => "the request was not taken");
        Assert.That(frontEnd.Ask(Request.SetFeatures, FrontEndDriver.Features | VirtioFeatures.LogAll), Is.Zero);
        Assert.That(ring.Queue.TryGetUsed(out _, out _), "it is completed before the log counts");
    }

    [Test]
    public void SetLogFd_IsSignalledForWhatIsWritten()
    {
        using FrontEndRing ring = _frontEnd.Start(0, 16, Feature.LogShmFd);
        using var changed = new EventFd();
        SetLog(0);
        Assert.That(_frontEnd.Ask(Request.SetLogFd, [], changed), Is.Zero);
        Assert.That(_frontEnd.Ask(Request.SetFeatures, FrontEndDriver.Features | VirtioFeatures.LogAll), Is.Zero);
        ring.Add([1], 1);
        ring.Take();
        ring.Stop();
        Assert.That(changed.Drain(), Is.Not.Zero);
    }

    [TestCase(0x10001UL, 0UL, Description = "too long")]
    [TestCase(0x1000UL, 0x10000UL, Description = "behind the end")]
    public void SetLogBase_NotInItsFile_IsRefused(ulong size, ulong offset)
    {
        _frontEnd.Negotiate(0, Feature.LogShmFd);
        Assert.That(_frontEnd.Ask(Request.SetLogBase, new LogPayload(size, offset), _file), Is.EqualTo(1));
    }

    [Test]
    public void SetLogBase_EmptyOrWithoutFile_ClosesTheConnection()
    {
        _frontEnd.Negotiate(0, Feature.LogShmFd);
        _frontEnd.Send(Request.SetLogBase, new LogPayload(0x1000, 0));
        Assert.That(_frontEnd.IsClosed());
    }

    [Test]
    public void SetLogBase_WithoutSharedMemory_ClosesTheConnection()
    {
        _frontEnd.Negotiate();
        _frontEnd.Send(Request.SetLogBase, 0UL);
        Assert.That(_frontEnd.IsClosed());
    }

    [TestCase(0UL, 1UL, new ulong[] { 0 })]
    [TestCase(4095UL, 2UL, new ulong[] { 0, 1 })]
    [TestCase(31UL * 4096, 3UL * 4096, new ulong[] { 31, 32, 33 })]
    [TestCase(4096UL * 80 - 1, 4096UL, new ulong[] { 79 }, Description = "as far as the log goes")]
    [TestCase(4096UL * 80, 4096UL, new ulong[0])]
    [TestCase(ulong.MaxValue, ulong.MaxValue, new ulong[0])]
    [TestCase(4096UL, 0UL, new ulong[0])]
    public void Mark_Range_SetsTheBitsOfItsPages(ulong address, ulong length, ulong[] expected)
    {
        // Ten bytes of log at an odd place; the mapping goes with the log.
        using var log = new DirtyLog(MemoryMapping.Map(_file, 0x10000, MappingAccess.SharedReadWrite), 0x803, 10);
        log.Mark(address, length);
        Assert.That(Pages(0x803), Is.EqualTo(expected));
    }

    private void SetLog(ulong offset)
    {
        _frontEnd.Send(Request.SetLogBase, new LogPayload(LogSize, offset), VhostUserFlags.NeedReply, _file);
        Assert.That(_frontEnd.Receive<ulong>(Request.SetLogBase), Is.Zero, "this one is answered, once");
    }

    private ulong[] Pages(ulong offset)
    {
        ReadOnlySpan<byte> bits = new LogView(_log).Bytes[(int)offset..];
        var pages = new List<ulong>();
        for (int i = 0; i < bits.Length * 8; i++)
        {
            if ((bits[i / 8] & 1 << i % 8) != 0)
                pages.Add((ulong)i);
        }
        return [.. pages];
    }

    private readonly unsafe struct LogView(MemoryMapping mapping)
    {
        public Span<byte> Bytes => new(mapping.Pointer, (int)mapping.Length);

        public void Clear() => Bytes.Clear();
    }
}
