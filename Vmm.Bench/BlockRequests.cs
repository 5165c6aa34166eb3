namespace Vmm.Bench;

/// <summary>4 KiB of a disk at random, read or written (VIRTIO 1.2 §5.2.6).</summary>
/// <param name="isWrite">Whether they are written.</param>
/// <param name="diskSize">Bytes of the disk.</param>
internal sealed unsafe class BlockRequests(bool isWrite, ulong diskSize) : IBenchRequests
{
    public const int BlockSize = 4096;

    private const int SectorSize = 512;

    public int DataSize => BlockSize;

    public int Fill(BenchSlot slot, ulong random)
    {
        *(ulong*)slot.Request = isWrite ? 1u : 0u;
        *(ulong*)(slot.Request + 8) = random % (diskSize / BlockSize) * (BlockSize / SectorSize);
        *slot.Reply = 0xFF;
        slot.DescribeRequest(0, 16);
        slot.DescribeData(1, BlockSize, isWritable: !isWrite);
        slot.DescribeReply(2, 1);
        return 3;
    }

    public void Check(BenchSlot slot)
    {
        if (*slot.Reply != 0)
            throw new InvalidOperationException($"request {slot.Index} failed: {*slot.Reply}");
    }
}
