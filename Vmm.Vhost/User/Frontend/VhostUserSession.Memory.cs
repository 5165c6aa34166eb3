using System.Runtime.InteropServices;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Vhost.User.Frontend;

// Memory, and the translation of addresses.
public sealed partial class VhostUserSession
{
    /// <summary>SET_MEM_TABLE: all of the memory, in place of what was shared before.</summary>
    /// <param name="regions">1 to <see cref="MemoryTableHeader.MaxRegions"/> regions that do not overlap.</param>
    /// <param name="files">The file of each.</param>
    public void SetMemoryTable(ReadOnlySpan<MemoryRegionPayload> regions, ReadOnlySpan<FileDescriptor> files) =>
        Tell(VhostUserRequest.SetMemTable, MemoryTable(regions, files), files);

    /// <summary>GET_MAX_MEM_SLOTS: how many regions the back-end takes by <see cref="AddMemoryRegion"/>.</summary>
    public ulong GetMaxMemorySlots() => AskNumber(VhostUserRequest.GetMaxMemSlots);

    /// <summary>ADD_MEM_REG: one more region.</summary>
    public void AddMemoryRegion(in MemoryRegionPayload region, FileDescriptor file) =>
        Tell(VhostUserRequest.AddMemReg, Bytes(new SingleMemoryRegion(0, region)), file);

    /// <summary>REM_MEM_REG: takes a region away, found by its addresses and size. No descriptor goes with it: some back-ends refuse one.</summary>
    public void RemoveMemoryRegion(in MemoryRegionPayload region) =>
        Tell(VhostUserRequest.RemMemReg, Bytes(new SingleMemoryRegion(0, region)));

    /// <summary>Shares memory for the first time, however many regions it has: in one table, or one by one where there are more than
    /// any back-end takes in a table.</summary>
    /// <param name="regions">The regions.</param>
    /// <param name="files">The file of each.</param>
    public void ShareMemory(ReadOnlySpan<MemoryRegionPayload> regions, ReadOnlySpan<FileDescriptor> files)
    {
        // Before the first of them is sent.
        ArgumentOutOfRangeException.ThrowIfNotEqual(files.Length, regions.Length, nameof(files));
        if (regions.Length <= MemoryTableHeader.MaxRegions)
        {
            SetMemoryTable(regions, files);
            return;
        }
        ulong slots = GetMaxMemorySlots();
        if ((ulong)regions.Length > slots)
            throw new VhostUserException($"{Peer}: takes {slots} memory regions at most, and there are {regions.Length}");
        for (int i = 0; i < regions.Length; i++)
            AddMemoryRegion(in regions[i], files[i]);
    }

    /// <summary>IOTLB_MSG: gives or takes an entry of the back-end's translation of addresses. Only with VIRTIO_F_ACCESS_PLATFORM.</summary>
    public void SendIotlb(in IotlbPayload entry)
    {
        // It is always answered, but DPDK wants to be asked, as QEMU does.
        using VhostUserMessage reply = Ask(
            VhostUserRequest.IotlbMsg,
            Bytes(in entry),
            PayloadSize.U64,
            PayloadSize.U64,
            flags: Agreed(VhostUserProtocolFeatures.ReplyAck) ? VhostUserFlags.NeedReply : 0);
        if (reply.Read<ulong>() is not 0 and var result)
            throw Refused(VhostUserRequest.IotlbMsg, $"0x{result:x}");
    }

    private static byte[] MemoryTable(ReadOnlySpan<MemoryRegionPayload> regions, ReadOnlySpan<FileDescriptor> files)
    {
        ArgumentOutOfRangeException.ThrowIfZero(regions.Length, nameof(regions));
        // libvhost-user and DPDK have room for so many descriptors, and do not look.
        ArgumentOutOfRangeException.ThrowIfGreaterThan(regions.Length, MemoryTableHeader.MaxRegions, nameof(regions));
        ArgumentOutOfRangeException.ThrowIfNotEqual(files.Length, regions.Length, nameof(files));
        byte[] table = new byte[MemoryTableHeader.WireSize + regions.Length * MemoryRegionPayload.WireSize];
        MemoryMarshal.Write(table, new MemoryTableHeader((uint)regions.Length, 0));
        MemoryMarshal.AsBytes(regions).CopyTo(table.AsSpan(MemoryTableHeader.WireSize));
        return table;
    }
}
