using NUnit.Framework;
using Vmm.Vhost.Native;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Backend;
using Vmm.Vhost.User.Protocol;
using Feature = Vmm.Vhost.User.Protocol.VhostUserProtocolFeatures;
using Request = Vmm.Vhost.User.Protocol.VhostUserRequest;

namespace Vmm.Tests.Fakes;

/// <summary>Requests that a back-end had taken when its connection ended. They are in a ring and in its in-flight log, for the next back-end.</summary>
internal sealed class LostRequests : IDisposable
{
    private readonly ulong _features;
    private readonly Feature _protocolFeatures;
    private readonly FrontEndDriver _first;
    private readonly FrontEndRing _ring;
    private readonly InflightPayload _payload;
    private readonly FileDescriptor _log;
    private FrontEndDriver? _second;

    /// <summary>Has a back-end take <paramref name="count"/> requests, and ends its connection.</summary>
    /// <param name="count">How many.</param>
    /// <param name="features">The driver's features.</param>
    /// <param name="protocolFeatures">The front-end's.</param>
    /// <param name="size">The ring's size.</param>
    /// <param name="add">Adds a request to the ring: the number of the request, by default as its only byte, with room for one.</param>
    /// <param name="kept">Bytes of the next back-end's own behind the log.</param>
    public LostRequests(int count, ulong features, Feature protocolFeatures, int size = 16, Func<FrontEndRing, int, ushort>? add = null, int kept = 0)
    {
        Device = new EchoDevice { Holds = true, Leaves = true, Kept = kept };
        (_features, _protocolFeatures) = (features, protocolFeatures);
        _first = FrontEndDriver.ConnectedTo(Device);
        _first.Negotiate(features, protocolFeatures);
        _first.ShareMemory();
        _payload = GetLog(_first, 2, (ushort)size, out _log);
        Assert.That(_first.Ask(Request.SetInflightFd, _payload, _log), Is.Zero);
        _ring = _first.Ring(0, size, features);
        _ring.SetUp();
        _ring.Enable(true);
        add ??= (ring, i) => ring.Add([(byte)i], 1);
        Ids = [.. Enumerable.Range(0, count).Select(i => add(_ring, i))];
        Eventually.True(() => Device.Events.Contains($"held {Ids[^1]}"), () => "the requests were not taken");
        _first.Connection.Dispose();
        Eventually.True(() => Device.Events.Contains("gone"), () => "the session has not ended");
        Assert.That(_ring.Queue.TryGetUsed(out _, out _), Is.False, "nothing was completed");
    }

    /// <summary>The back-end that took them.</summary>
    public EchoDevice Device { get; }

    /// <summary>The requests, oldest first.</summary>
    public ushort[] Ids { get; }

    /// <summary>Gives the memory, the log and the ring to <paramref name="next"/>. The ring is set up at the base of its first start, since nobody has
    /// said another, and not enabled. Whoever had them before is left.</summary>
    public FrontEndRing GiveTo(VhostUserDevice next)
    {
        _second?.Leave();
        _second = FrontEndDriver.ConnectedTo(next, memory: _first.Memory);
        _second.Negotiate(_features, _protocolFeatures);
        _second.ShareMemory();
        Assert.That(_second.Ask(Request.SetInflightFd, _payload, _log), Is.Zero);
        FrontEndRing ring = _ring.On(_second);
        ring.SetUp();
        return ring;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _second?.Leave();
        _ring.Dispose();
        _first.Dispose();
        _log.Dispose();
    }

    /// <summary>Has a back-end make an in-flight log.</summary>
    public static InflightPayload GetLog(FrontEndDriver frontEnd, ushort rings, ushort size, out FileDescriptor file)
    {
        frontEnd.Send(Request.GetInflightFd, new InflightPayload(0, 0, rings, size));
        using VhostUserMessage reply = frontEnd.Receive(Request.GetInflightFd);
        Assert.That(reply.DescriptorCount, Is.EqualTo(1));
        file = reply.TakeDescriptor()!;
        InflightPayload payload = reply.Read<InflightPayload>();
        Assert.That(payload.MmapSize, Is.GreaterThanOrEqualTo((ulong)rings * size * 16));
        return payload;
    }
}
