using System.Runtime.InteropServices;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Bench;

/// <summary>Sets a vhost-user back-end up the way that QEMU does, and no more than that.</summary>
internal sealed class BenchFrontEnd : IDisposable
{
    private static readonly TimeSpan s_deadline = TimeSpan.FromSeconds(10);

    private readonly VhostUserConnection _connection;

    public BenchFrontEnd(string path) => _connection = new VhostUserConnection(UnixSocket.Connect(path), path);

    /// <summary>Agrees on what both sides can of <paramref name="wanted"/>, and shows the guest's memory.</summary>
    /// <returns>What was agreed on.</returns>
    public ulong Begin(ulong wanted, GuestMemory memory)
    {
        Send(VhostUserRequest.SetOwner, []);
        ulong features = Ask(VhostUserRequest.GetFeatures) & (wanted | VirtioFeatures.VhostUserProtocolFeatures);
        _ = Ask(VhostUserRequest.GetProtocolFeatures);
        Send(VhostUserRequest.SetProtocolFeatures, (ulong)VhostUserProtocolFeatures.Mq);
        Send(VhostUserRequest.SetFeatures, features);

        var table = new byte[MemoryTableHeader.WireSize + memory.Regions.Length * MemoryRegionPayload.WireSize];
        MemoryMarshal.Write(table, new MemoryTableHeader((uint)memory.Regions.Length, 0));
        var descriptors = new FileDescriptor[memory.Regions.Length];
        for (int i = 0; i < memory.Regions.Length; i++)
        {
            GuestRegion region = memory.Regions[i];
            var payload = new MemoryRegionPayload(region.Start.Value, region.Size, region.Start.Value, region.FileOffset);
            MemoryMarshal.Write(table.AsSpan(MemoryTableHeader.WireSize + i * MemoryRegionPayload.WireSize), in payload);
            descriptors[i] = memory.File;
        }
        Send(VhostUserRequest.SetMemTable, table, descriptors);
        return features;
    }

    /// <summary>Starts a ring.</summary>
    public void Start(in VringConfig ring)
    {
        uint index = (uint)ring.Index;
        Send(VhostUserRequest.SetVringNum, new VringState(index, (uint)ring.Size));
        Send(VhostUserRequest.SetVringBase, new VringState(index, 0));
        Send(VhostUserRequest.SetVringAddr, new VringAddress(index, 0, ring.DescriptorArea.Value, ring.DeviceArea.Value, ring.DriverArea.Value, 0));
        Send(VhostUserRequest.SetVringCall, Bytes((ulong)index), [ring.Call]);
        Send(VhostUserRequest.SetVringKick, Bytes((ulong)index), [ring.Kick]);
        Send(VhostUserRequest.SetVringEnable, new VringState(index, 1));
    }

    /// <summary>Stops a ring; the back-end is done with it when this returns.</summary>
    public void Stop(int ring)
    {
        Send(VhostUserRequest.GetVringBase, new VringState((uint)ring, 0));
        _connection.Receive(s_deadline, s_deadline)?.Dispose();
    }

    public void Dispose() => _connection.Dispose();

    private ulong Ask(VhostUserRequest request)
    {
        Send(request, []);
        using VhostUserMessage reply = _connection.Receive(s_deadline, s_deadline) ?? throw new TimeoutException($"{request}: no reply");
        return reply.Read<ulong>();
    }

    private void Send<T>(VhostUserRequest request, T payload)
        where T : unmanaged => Send(request, Bytes(payload));

    private void Send(VhostUserRequest request, byte[] payload, params ReadOnlySpan<FileDescriptor> descriptors) =>
        _connection.Send((uint)request, 0, payload, descriptors, s_deadline);

    private static byte[] Bytes<T>(T value)
        where T : unmanaged => MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in value)).ToArray();
}
