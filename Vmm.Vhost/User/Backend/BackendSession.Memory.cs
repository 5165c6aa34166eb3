using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Vhost.User.Backend;

/// <content>The guest's memory.</content>
internal sealed partial class BackendSession
{
    private void SetMemoryTable(VhostUserMessage message)
    {
        MemoryTableHeader header = message.Read<MemoryTableHeader>();
        long size = MemoryTableHeader.WireSize + (long)header.RegionCount * MemoryRegionPayload.WireSize;
        if (header.RegionCount == 0 || header.Padding != 0 || message.Payload.Length != size || message.DescriptorCount != header.RegionCount)
        {
            throw new ViolationException(
                $"{header.RegionCount} regions, padding {header.Padding}, in {message.Payload.Length} bytes with {message.DescriptorCount} descriptors");
        }
        var regions = new List<MappedRegion>();
        try
        {
            for (int i = 0; i < header.RegionCount; i++)
            {
                using FileDescriptor file = message.TakeDescriptor()!;
                regions.Add(MappedRegion.Map(
                    message.Read<MemoryRegionPayload>(MemoryTableHeader.WireSize + i * MemoryRegionPayload.WireSize), file));
            }
            ReplaceMemory(BackendMemory.Of([.. regions]));
        }
        catch
        {
            // Those that were taken over are in use; a table that was refused has none.
            foreach (MappedRegion region in regions.Where(region => !_memory.Regions.Contains(region)))
                region.Dispose();
            throw;
        }
    }

    private void AddRegion(VhostUserMessage message)
    {
        MemoryRegionPayload payload = ReadSingle(message.Read<SingleMemoryRegion>());
        using FileDescriptor file = message.TakeDescriptor()!;
        MappedRegion region = MappedRegion.Map(in payload, file);
        try
        {
            ReplaceMemory(BackendMemory.Of([.. _memory.Regions, region]));
        }
        catch
        {
            if (!_memory.Regions.Contains(region))
                region.Dispose();
            throw;
        }
    }

    // Which one is said by addresses and size; the offset, and a descriptor that may come along, say nothing.
    private void RemoveRegion(SingleMemoryRegion message)
    {
        MemoryRegionPayload wanted = ReadSingle(message);
        MappedRegion[] rest = [.. _memory.Regions.ToArray().Where(region => !IsSame(region.Payload, wanted))];
        if (rest.Length == _memory.Regions.Length)
            throw new RefusedException($"there is no memory region 0x{wanted.GuestAddress:x}+0x{wanted.Size:x}");
        ReplaceMemory(BackendMemory.Of(rest));

        static bool IsSame(MemoryRegionPayload one, MemoryRegionPayload other) =>
            one.GuestAddress == other.GuestAddress && one.UserAddress == other.UserAddress && one.Size == other.Size;
    }

    private static MemoryRegionPayload ReadSingle(SingleMemoryRegion message) =>
        message.Padding == 0 ? message.Region : throw new ViolationException($"its padding is 0x{message.Padding:x}");

    // Rings that run give everything back, and go on in the new memory.
    private void ReplaceMemory(BackendMemory memory)
    {
        PauseAll();
        BackendMemory old = _memory;
        _memory = memory;
        ResumeAll();
        foreach (MappedRegion region in old.Regions)
        {
            if (!memory.Regions.Contains(region))
                region.Dispose();
        }
        StartAll();
    }
}
