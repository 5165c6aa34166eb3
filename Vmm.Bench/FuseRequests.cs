using System.Globalization;

namespace Vmm.Bench;

/// <summary>Requests to a directory's daemon, of one kind: what Linux sends for the operation.</summary>
internal sealed unsafe class FuseRequests : IBenchRequests
{
    /// <summary>Files that are there, f0 and so on, beside "data".</summary>
    public const int Files = 1000;

    /// <summary>Operations that there are.</summary>
    public static readonly string[] Operations = ["read", "write", "read128", "write128", "getattr", "lookup", "create"];

    private readonly string _operation;
    private readonly ulong _node;
    private readonly ulong _handle;
    private readonly ulong _fileSize;
    private readonly int[] _steps = new int[256];       // of each slot, in operations of several requests
    private readonly ulong[] _nodes = new ulong[256];   // of the files that the slots' steps are about
    private readonly ulong[] _handles = new ulong[256];
    private readonly string[] _names = [.. Enumerable.Range(0, Files).Select(i => string.Create(CultureInfo.InvariantCulture, $"f{i}"))];
    private readonly string[] _newNames = [.. Enumerable.Range(0, 256).Select(i => string.Create(CultureInfo.InvariantCulture, $"new{i}"))];

    public FuseRequests(string operation, FuseSetup setup, ulong fileSize)
    {
        _operation = operation;
        _node = setup.Node;
        _handle = setup.Handle;
        _fileSize = fileSize;
    }

    public int DataSize => _operation.EndsWith("128", StringComparison.Ordinal) ? 128 << 10 : 4096;

    public int Fill(BenchSlot slot, ulong random)
    {
        byte* arguments = FuseMessage.Arguments(slot);
        new Span<byte>(arguments, 64).Clear();
        switch (_operation)
        {
            case "getattr":
                return FuseMessage.Finish(slot, FuseMessage.GetAttributes, _node, 16, FuseMessage.AttributesSize);
            case "lookup":
                return FillLookup(slot, arguments, random);
            case "create":
                return FillCreate(slot, arguments);
            default:
                *(ulong*)arguments = _handle;
                *(ulong*)(arguments + 8) = random % (_fileSize / (ulong)DataSize) * (ulong)DataSize;
                *(int*)(arguments + 16) = DataSize;
                return _operation.StartsWith("write", StringComparison.Ordinal)
                    ? FuseMessage.FinishWrite(slot, _node, 40, DataSize)
                    : FuseMessage.FinishRead(slot, _node, 40, DataSize);
        }
    }

    public void Check(BenchSlot slot)
    {
        FuseMessage.Check(slot);
        if (_operation is not ("lookup" or "create"))
            return;
        if (_steps[slot.Index] == 1)
        {
            _nodes[slot.Index] = *(ulong*)FuseMessage.Result(slot);
            _handles[slot.Index] = *(ulong*)(FuseMessage.Result(slot) + FuseMessage.EntrySize);
        }
    }

    // A name is looked up, and forgotten: stat(2) of what the guest does not have.
    private int FillLookup(BenchSlot slot, byte* arguments, ulong random)
    {
        ref int step = ref _steps[slot.Index];
        if (step == 1)
            return FillForget(slot, arguments);
        step = 1;
        return FuseMessage.Finish(slot, FuseMessage.Lookup, FuseMessage.Root, FuseMessage.WriteName(arguments, _names[random % Files]), FuseMessage.EntrySize);
    }

    // A file is made, closed, removed and forgotten.
    private int FillCreate(BenchSlot slot, byte* arguments)
    {
        ref int step = ref _steps[slot.Index];
        switch (step)
        {
            case 0:
                step = 1;
                *(uint*)arguments = 0x8042; // O_RDWR | O_CREAT | O_LARGEFILE
                *(uint*)(arguments + 4) = 0x81A4; // a file of mode 0644
                int length = FuseMessage.WriteName(arguments + 16, _newNames[slot.Index]);
                return FuseMessage.Finish(slot, FuseMessage.Create, FuseMessage.Root, 16 + length, FuseMessage.EntrySize + FuseMessage.OpenSize);
            case 1:
                step = 2;
                *(ulong*)arguments = _handles[slot.Index];
                *(uint*)(arguments + 8) = 2;
                return FuseMessage.Finish(slot, FuseMessage.Release, _nodes[slot.Index], 24, 0);
            case 2:
                step = 3;
                return FuseMessage.Finish(slot, FuseMessage.Unlink, FuseMessage.Root, FuseMessage.WriteName(arguments, _newNames[slot.Index]), 0);
            default:
                return FillForget(slot, arguments);
        }
    }

    private int FillForget(BenchSlot slot, byte* arguments)
    {
        _steps[slot.Index] = 0;
        *(ulong*)arguments = 1;
        return FuseMessage.FinishSilent(slot, FuseMessage.Forget, _nodes[slot.Index], 8);
    }
}
