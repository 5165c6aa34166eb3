namespace Vmm.Bench;

/// <summary>The place of one request in guest memory: its indirect table, what the device reads of it, what it writes, and its data.</summary>
/// <param name="index">Its number in its queue.</param>
/// <param name="memory">Where its <see cref="Size"/> bytes are.</param>
/// <param name="address">The same place, as the device addresses it.</param>
/// <param name="data">Where its data is, as the device addresses it.</param>
internal readonly unsafe struct BenchSlot(int index, byte* memory, ulong address, ulong data)
{
    public const int Size = 512;

    private const int RequestOffset = 128;  // before it the table: 8 descriptors
    private const int ReplyOffset = 320;

    public int Index => index;

    /// <summary>What the device reads, without data; at most 192 bytes.</summary>
    public byte* Request => memory + RequestOffset;

    /// <summary>What the device writes, without data; at most 192 bytes.</summary>
    public byte* Reply => memory + ReplyOffset;

    /// <summary>Descriptor <paramref name="at"/> of the table: the request.</summary>
    public void DescribeRequest(int at, int length, bool isLast = false) => Describe(at, address + RequestOffset, length, false, isLast);

    /// <summary>Descriptor <paramref name="at"/> of the table: the reply, which is the last.</summary>
    public void DescribeReply(int at, int length, bool isLast = true) => Describe(at, address + ReplyOffset, length, true, isLast);

    /// <summary>Descriptor <paramref name="at"/> of the table: the data.</summary>
    public void DescribeData(int at, int length, bool isWritable, bool isLast = false) => Describe(at, data, length, isWritable, isLast);

    private void Describe(int at, ulong start, int length, bool isWritable, bool isLast)
    {
        // SAFETY: the table lies in the slot's memory.
        byte* descriptor = memory + 16 * at;
        *(ulong*)descriptor = start;
        *(int*)(descriptor + 8) = length;
        *(ushort*)(descriptor + 12) = (ushort)((isLast ? 0 : 1) | (isWritable ? 2 : 0));
        *(ushort*)(descriptor + 14) = (ushort)(isLast ? 0 : at + 1);
    }
}
