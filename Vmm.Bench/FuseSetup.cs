namespace Vmm.Bench;

/// <summary>The first requests of a directory's driver, one after another: INIT, LOOKUP and OPEN of the file "data".</summary>
internal sealed unsafe class FuseSetup : IBenchRequests
{
    private int _step;

    public int DataSize => 0;

    /// <summary>The last one is on its way.</summary>
    public bool IsLast => _step == 3;

    /// <summary>The number of the file.</summary>
    public ulong Node { get; private set; }

    /// <summary>The open file, for reads and writes.</summary>
    public ulong Handle { get; private set; }

    public int Fill(BenchSlot slot, ulong random)
    {
        byte* arguments = FuseMessage.Arguments(slot);
        new Span<byte>(arguments, 64).Clear();
        switch (_step++)
        {
            case 0:
                *(uint*)arguments = 7;
                *(uint*)(arguments + 4) = 38;
                *(uint*)(arguments + 8) = 128 << 10;
                *(uint*)(arguments + 12) = 1 | 1 << 5 | 1 << 22; // ASYNC_READ, BIG_WRITES, MAX_PAGES
                return FuseMessage.Finish(slot, FuseMessage.Init, 0, 16, 64);
            case 1:
                return FuseMessage.Finish(slot, FuseMessage.Lookup, FuseMessage.Root, FuseMessage.WriteName(arguments, "data"), FuseMessage.EntrySize);
            default:
                *(uint*)arguments = 2; // O_RDWR
                return FuseMessage.Finish(slot, FuseMessage.Open, Node, 8, FuseMessage.OpenSize);
        }
    }

    public void Check(BenchSlot slot)
    {
        FuseMessage.Check(slot);
        if (_step == 2)
            Node = *(ulong*)FuseMessage.Result(slot);
        else if (_step == 3)
            Handle = *(ulong*)FuseMessage.Result(slot);
    }
}
