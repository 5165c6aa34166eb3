using System.Text;

namespace Vmm.Bench;

/// <summary>Writes FUSE requests into slots, and reads their replies (linux/fuse.h, protocol 7.38).</summary>
internal static unsafe class FuseMessage
{
    public const uint Lookup = 1, Forget = 2, GetAttributes = 3, Unlink = 10, Open = 14, Read = 15, Write = 16, Release = 18, Init = 26, Create = 35;
    public const ulong Root = 1;
    public const int EntrySize = 128;
    public const int AttributesSize = 104;
    public const int OpenSize = 16;

    private const int HeaderSize = 40;
    private const int ReplyHeaderSize = 16;

    /// <summary>The arguments of the slot's request, which follow its header.</summary>
    public static byte* Arguments(BenchSlot slot) => slot.Request + HeaderSize;

    /// <summary>What follows the header of the slot's reply.</summary>
    public static byte* Result(BenchSlot slot) => slot.Reply + ReplyHeaderSize;

    /// <summary>A request without data: <paramref name="result"/> bytes follow the header of its reply.</summary>
    /// <returns>Descriptors.</returns>
    public static int Finish(BenchSlot slot, uint opcode, ulong node, int arguments, int result)
    {
        WriteHeader(slot, opcode, node, arguments, 0);
        slot.DescribeRequest(0, HeaderSize + arguments);
        slot.DescribeReply(1, ReplyHeaderSize + result);
        return 2;
    }

    /// <summary>A request that has no reply.</summary>
    public static int FinishSilent(BenchSlot slot, uint opcode, ulong node, int arguments)
    {
        WriteHeader(slot, opcode, node, arguments, 0);
        *(int*)(slot.Reply + 4) = 0;
        slot.DescribeRequest(0, HeaderSize + arguments, isLast: true);
        return 1;
    }

    /// <summary>A write of <paramref name="size"/> bytes, whose arguments are there.</summary>
    public static int FinishWrite(BenchSlot slot, ulong node, int arguments, int size)
    {
        WriteHeader(slot, Write, node, arguments, size);
        slot.DescribeRequest(0, HeaderSize + arguments);
        slot.DescribeData(1, size, isWritable: false);
        slot.DescribeReply(2, ReplyHeaderSize + 8);
        return 3;
    }

    /// <summary>A read of <paramref name="size"/> bytes, whose arguments are there.</summary>
    public static int FinishRead(BenchSlot slot, ulong node, int arguments, int size)
    {
        WriteHeader(slot, Read, node, arguments, 0);
        slot.DescribeRequest(0, HeaderSize + arguments);
        slot.DescribeReply(1, ReplyHeaderSize, isLast: false);
        slot.DescribeData(2, size, isWritable: true, isLast: true);
        return 3;
    }

    /// <summary>Writes a name at <paramref name="at"/>.</summary>
    /// <returns>Its bytes, with the zero at its end.</returns>
    public static int WriteName(byte* at, string name)
    {
        int length = Encoding.UTF8.GetBytes(name, new Span<byte>(at, 64));
        at[length] = 0;
        return length + 1;
    }

    /// <summary>Throws unless the reply is one of success.</summary>
    public static void Check(BenchSlot slot)
    {
        int error = *(int*)(slot.Reply + 4);
        if (error != 0)
            throw new InvalidOperationException($"FUSE request {*(uint*)(slot.Request + 4)} failed: errno {-error}");
    }

    private static void WriteHeader(BenchSlot slot, uint opcode, ulong node, int arguments, int data)
    {
        byte* header = slot.Request;
        new Span<byte>(header, HeaderSize).Clear();
        *(int*)header = HeaderSize + arguments + data;
        *(uint*)(header + 4) = opcode;
        *(ulong*)(header + 8) = (ulong)slot.Index + 2;
        *(ulong*)(header + 16) = node;
        *(int*)(header + 32) = Environment.ProcessId;
        *(int*)(slot.Reply + 4) = int.MinValue;
    }
}
