using System.Text;
using NUnit.Framework;
using Vmm.Devices.Backends.FileSystem;
using Vmm.Tests.Conformance;
using static Vmm.Tests.Conformance.FuseClient;

namespace Vmm.Tests.Devices.Backends.FileSystem;

/// <summary>A guest of software that speaks FUSE to a back-end, with the requests that tests need; each in the words of linux/fuse.h.</summary>
internal sealed class FuseGuest : IDisposable
{
    public const ulong Root = FuseClient.Root;
    public const int EntrySize = 128, AttributesSize = 104;

    /// <summary>All that a Linux client of today offers.</summary>
    public const ulong AllFlags = 0x7_7FFF_FFFF;

    /// <summary>The process of the guest's that asks for locks.</summary>
    public const uint LockProcess = 4711;

    private const int ReadOnlyFlag = 0, ReadWriteFlag = 2;

    public FuseGuest(string socket, ulong flags = AllFlags, ulong features = ulong.MaxValue, int queues = 1)
    {
        Peer = new PeerGuest(socket, 1 + queues, [(new(0), 64 << 20)]);
        try
        {
            Peer.Start(features);
            Begin(flags);
        }
        catch
        {
            Peer.Dispose();
            throw;
        }
    }

    public PeerGuest Peer { get; }

    public FuseClient Fuse { get; private set; } = null!;

    /// <summary>What was agreed on.</summary>
    public ulong Flags { get; private set; }

    /// <summary>What came back on the queue of high priority.</summary>
    public HashSet<int> Ended { get; } = [];

    /// <summary>A new driver's session, on the queues that there are.</summary>
    public void Begin(ulong flags)
    {
        Fuse = new FuseClient(Peer.Heap, Peer.Queues[0], Peer.Queues[1]);
        byte[] init = Demand(26, 0, [.. Bytes(7U, 39U, 0x20000U, (uint)flags, (uint)(flags >> 32)), .. new byte[44]], 64);
        Assert.That((U32(init, 0), U32(init, 4)), Is.EqualTo((7U, 39U)));
        Flags = U32(init, 12) | (ulong)U32(init, 32) << 32;
    }

    /// <summary>The same session on another of the request queues, 2 or more, for another thread. The queue for what must not wait stays one for all: one thread at a time may use it.</summary>
    public FuseClient On(int queue) => new(Peer.Heap, Peer.Queues[0], Peer.Queues[queue], unique: (ulong)queue << 32);

    public int Try(uint code, ulong node, byte[] arguments, int room = 0) => Fuse.Try(code, node, arguments, room, out _);

    public byte[] Demand(uint code, ulong node, byte[] arguments, int room = 0, byte[]? data = null)
    {
        Assert.That(Fuse.Try(code, node, arguments, room, out byte[] reply, data), Is.Zero, $"request {code} of node {node}");
        return reply;
    }

    /// <summary>The node of a file, by its path below the root; a negated error number where it cannot be found.</summary>
    public long Find(string path)
    {
        ulong node = Root;
        foreach (string name in path.Split('/'))
        {
            int error = Fuse.Try(1, node, Name(name), EntrySize, out byte[] reply);
            if (error < 0)
                return error;
            node = U64(reply, 0);
        }
        return (long)node;
    }

    public ulong Node(string path)
    {
        long node = Find(path);
        Assert.That(node, Is.Positive, path);
        return (ulong)node;
    }

    /// <summary>The handle of an opening, or a negated error number.</summary>
    public long Open(ulong node, uint flags = ReadWriteFlag, uint openFlags = 0)
    {
        int error = Fuse.Try(14, node, Bytes(flags, openFlags), 16, out byte[] reply);
        return error < 0 ? error : (long)U64(reply, 0);
    }

    public (ulong Node, ulong Handle) Create(ulong parent, string name, uint mode = 0x81A4, uint flags = 0x42, uint mask = 0)
    {
        byte[] reply = Demand(35, parent, [.. Bytes(flags, mode, mask, 0U), .. Name(name)], EntrySize + 16);
        return (U64(reply, 0), U64(reply, EntrySize));
    }

    public long TryCreate(ulong parent, string name, uint flags = 0x42)
    {
        int error = Fuse.Try(35, parent, [.. Bytes(flags, 0x81A4U, 0U, 0U), .. Name(name)], EntrySize + 16, out byte[] reply);
        return error < 0 ? error : (long)U64(reply, EntrySize);
    }

    public ulong MakeDirectory(ulong parent, string name, uint mode = 0x1ED) =>
        U64(Demand(9, parent, [.. Bytes(mode, 0U), .. Name(name)], EntrySize), 0);

    public int Unlink(ulong parent, string name) => Try(10, parent, Name(name));

    public int Rename(ulong parent, string name, ulong newParent, string newName, uint flags = 0) =>
        Try(45, parent, [.. Bytes(newParent), .. Bytes(flags, 0U), .. Name(name), .. Name(newName)]);

    public byte[] Attributes(ulong node) => Demand(3, node, Bytes(0UL, 0UL), AttributesSize)[16..];

    public int TryAttributes(ulong node) => Fuse.Try(3, node, Bytes(0UL, 0UL), AttributesSize, out _);

    public string ReadText(ulong node)
    {
        long handle = Open(node, ReadOnlyFlag);
        Assert.That(handle, Is.Not.Negative, "open");
        string text = Encoding.UTF8.GetString(Fuse.Read(node, (ulong)handle, 0, 4096));
        Fuse.Release(node, (ulong)handle);
        return text;
    }

    public int SetXattr(ulong node, string name, byte[] value)
    {
        bool isLong = (Flags & (ulong)FuseFlags.SetXattrExtension) != 0;
        return Try(21, node, [.. Bytes((uint)value.Length, 0U), .. isLong ? Bytes(0U, 0U) : [], .. Name(name), .. value]);
    }

    public int GetXattr(ulong node, string name, out byte[] value) => Fuse.Try(22, node, [.. Bytes(4096U, 0U), .. Name(name)], 4096, out value);

    public string[] ListXattrs(ulong node) =>
        Encoding.UTF8.GetString(Demand(23, node, Bytes(4096U, 0U), 4096)).Split('\0', StringSplitOptions.RemoveEmptyEntries);

    /// <summary>Takes or gives up a lock.</summary>
    /// <param name="node">The file.</param>
    /// <param name="handle">Its opening.</param>
    /// <param name="owner">Whose lock.</param>
    /// <param name="type">0 to read, 1 to write, 2 to give it up.</param>
    /// <param name="isFlock">Of the whole file.</param>
    /// <param name="start">The first byte.</param>
    /// <param name="end">The last byte.</param>
    public int Lock(ulong node, ulong handle, ulong owner, uint type, bool isFlock = false, ulong start = 0, ulong end = long.MaxValue) =>
        Try(32, node, LockArguments(handle, owner, type, isFlock, start, end));

    public static byte[] LockArguments(ulong handle, ulong owner, uint type, bool isFlock = false, ulong start = 0, ulong end = long.MaxValue) =>
        // Linux does not say which process gives a lock up.
        [.. Bytes(handle, owner, start, end), .. Bytes(type, type == 2 ? 0U : LockProcess, isFlock ? 1U : 0U, 0U)];

    /// <summary>Names in a directory with their nodes (0 where the entry has none), read in small pieces.</summary>
    public List<(string Name, ulong Node)> ListPlus(ulong node, uint piece = 1024)
    {
        ulong handle = U64(Demand(27, node, Bytes(0U, 0U), 16), 0);
        var all = new List<(string, ulong)>();
        ulong offset = 0;
        while (true)
        {
            byte[] entries = Demand(44, node, [.. Bytes(handle, offset), .. Bytes(piece, 0U), .. Bytes(0UL), .. Bytes(0U, 0U)], (int)piece);
            if (entries.Length == 0)
                break;
            for (int at = 0; at < entries.Length;)
            {
                int length = (int)U32(entries, at + EntrySize + 16);
                all.Add((Encoding.UTF8.GetString(entries, at + EntrySize + 24, length), U64(entries, at)));
                offset = U64(entries, at + EntrySize + 8);
                at += (EntrySize + 24 + length + 7) & ~7;
            }
        }
        Demand(29, node, [.. Bytes(handle), .. Bytes(0U, 0U), .. Bytes(0UL)]);
        return all;
    }

    public void Dispose() => Peer.Dispose();
}
