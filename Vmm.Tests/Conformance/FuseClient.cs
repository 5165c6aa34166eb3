using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Text;
using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Memory;

namespace Vmm.Tests.Conformance;

/// <summary>Plays a guest's virtio-fs driver: FUSE requests of protocol 7.31 (linux/fuse.h), each with its buffers cut as Linux cuts
/// them (VIRTIO 1.2 §5.11.6): header, arguments, data.</summary>
internal sealed class FuseClient
{
    public const ulong Root = 1;
    public const int NoEntry = -2;
    public const int Exists = -17;

    private const int RequestHeaderSize = 40;
    private const int ReplyHeaderSize = 16;
    private const int DataSize = 256 * 1024;
    private const int ArgumentsSize = 80 * 1024;
    private const int AttributeOffset = 40;   // of struct fuse_attr in struct fuse_entry_out

    private readonly PeerQueue _requests;
    private readonly PeerQueue _priority;
    private readonly GuestMemory _memory;
    private readonly GuestAddress _header;
    private readonly GuestAddress _arguments;
    private readonly GuestAddress _data;
    private readonly GuestAddress _reply;
    private ulong _unique;

    /// <summary>A driver on two of a device's queues.</summary>
    /// <param name="heap">The guest's memory.</param>
    /// <param name="priority">The queue for what must not wait.</param>
    /// <param name="requests">The one for the rest.</param>
    /// <param name="unique">What the numbers of its requests begin after: no two of a session are the same.</param>
    public FuseClient(GuestHeap heap, PeerQueue priority, PeerQueue requests, ulong unique = 0)
    {
        _unique = unique;
        _priority = priority;
        _requests = requests;
        _memory = heap.Memory;
        _header = heap.Allocate(RequestHeaderSize);
        _arguments = heap.Allocate(ArgumentsSize);
        _data = heap.Allocate(DataSize);
        _reply = heap.Allocate(ReplyHeaderSize);
    }

    private enum Code : uint
    {
        Lookup = 1,
        Forget = 2,
        GetAttributes = 3,
        MakeDirectory = 9,
        Unlink = 10,
        RemoveDirectory = 11,
        Rename = 12,
        Open = 14,
        Read = 15,
        Write = 16,
        Release = 18,
        Fsync = 20,
        Initialize = 26,
        OpenDirectory = 27,
        ReadDirectory = 28,
        ReleaseDirectory = 29,
        Create = 35,
        Destroy = 38,
    }

    /// <summary>As whom the guest asks.</summary>
    public (uint User, uint Group) Caller { get; set; }

    /// <summary>Agrees on the protocol.</summary>
    /// <returns>The server's version.</returns>
    public (uint Major, uint Minor) Initialize()
    {
        byte[] reply = Demand(Code.Initialize, 0, Bytes(7U, 31U, 0x20000U, 0U), 64);
        return (U32(reply, 0), U32(reply, 4));
    }

    /// <summary>Any request.</summary>
    /// <param name="code">FUSE_* of linux/fuse.h.</param>
    /// <param name="node">The file.</param>
    /// <param name="arguments">What stands behind the header.</param>
    /// <param name="room">Bytes for the reply behind its header.</param>
    /// <param name="reply">The reply.</param>
    /// <param name="data">Data behind the arguments, in a buffer of its own.</param>
    /// <param name="extensions">Bytes of the arguments that are extensions.</param>
    /// <returns>0, or a negated error number.</returns>
    public int Try(uint code, ulong node, byte[] arguments, int room, out byte[] reply, byte[]? data = null, int extensions = 0) =>
        Request((Code)code, node, arguments, data ?? [], room, out reply, extensions);

    /// <summary>The node and the size of a file, or an error.</summary>
    public int Lookup(ulong parent, string name, out ulong node, out ulong size)
    {
        int error = Request(Code.Lookup, parent, Name(name), [], 128, out byte[] reply);
        node = error == 0 ? U64(reply, 0) : 0;
        size = error == 0 ? U64(reply, AttributeOffset + 8) : 0;
        return error;
    }

    /// <summary>Takes back <paramref name="lookups"/> look-ups, by the queue for what must not wait; there is no answer.</summary>
    public void Forget(ulong node, ulong lookups) => Tell(_priority, (uint)Code.Forget, node, Bytes(lookups));

    /// <summary>A request that has no answer, by the queue for those that have. The device has seen it when this returns.</summary>
    public void Tell(uint code, ulong node, byte[] arguments) => Tell(_requests, code, node, arguments);

    public ulong GetSize(ulong node) => U64(Demand(Code.GetAttributes, node, Bytes(0UL, 0UL), 104), 16 + 8);

    public ulong MakeDirectory(ulong parent, string name) =>
        U64(Demand(Code.MakeDirectory, parent, [.. Bytes(0x1EDU, 0U), .. Name(name)], 128), 0);

    public int TryMakeDirectory(ulong parent, string name) =>
        Request(Code.MakeDirectory, parent, [.. Bytes(0x1EDU, 0U), .. Name(name)], [], 128, out _);

    public void Unlink(ulong parent, string name) => Demand(Code.Unlink, parent, Name(name), 0);

    public void RemoveDirectory(ulong parent, string name) => Demand(Code.RemoveDirectory, parent, Name(name), 0);

    public void Rename(ulong parent, string name, ulong newParent, string newName) =>
        Demand(Code.Rename, parent, [.. Bytes(newParent), .. Name(name), .. Name(newName)], 0);

    /// <summary>Creates and opens a file.</summary>
    /// <returns>Its node and its handle.</returns>
    public (ulong Node, ulong Handle) Create(ulong parent, string name)
    {
        const uint flags = 2 | 0x40;   // O_RDWR | O_CREAT
        byte[] reply = Demand(Code.Create, parent, [.. Bytes(flags, 0x81A4U, 0U, 0U), .. Name(name)], 128 + 16);
        return (U64(reply, 0), U64(reply, 128));
    }

    public ulong Open(ulong node) => U64(Demand(Code.Open, node, Bytes(0U, 0U), 16), 0);

    public byte[] Read(ulong node, ulong handle, ulong offset, uint length) =>
        Demand(Code.Read, node, ReadArguments(handle, offset, length), (int)length, isShorter: true);

    public void Write(ulong node, ulong handle, ulong offset, byte[] data)
    {
        byte[] arguments = [.. Bytes(handle, offset), .. Bytes((uint)data.Length, 0U), .. Bytes(0UL), .. Bytes(0U, 0U)];
        Assert.That(Request(Code.Write, node, arguments, data, 8, out byte[] reply), Is.Zero, "Write");
        Assert.That(U32(reply, 0), Is.EqualTo(data.Length), "bytes written");
    }

    public void Synchronize(ulong node, ulong handle) => Demand(Code.Fsync, node, [.. Bytes(handle), .. Bytes(0U, 0U)], 0);

    public void Release(ulong node, ulong handle) => Demand(Code.Release, node, ReleaseArguments(handle), 0);

    /// <summary>The names in a directory, without . and ..; read in small pieces.</summary>
    public List<string> List(ulong node)
    {
        ulong handle = U64(Demand(Code.OpenDirectory, node, Bytes(0U, 0U), 16), 0);
        var names = new List<string>();
        ulong offset = 0;
        while (true)
        {
            byte[] entries = Demand(Code.ReadDirectory, node, ReadArguments(handle, offset, 512), 512, isShorter: true);
            if (entries.Length == 0)
                break;
            for (int at = 0; at < entries.Length;)
            {
                int length = (int)U32(entries, at + 16);
                string name = Encoding.UTF8.GetString(entries, at + 24, length);
                if (name is not ("." or ".."))
                    names.Add(name);
                offset = U64(entries, at + 8);
                at += (24 + length + 7) & ~7;
            }
        }
        Demand(Code.ReleaseDirectory, node, ReleaseArguments(handle), 0);
        return names;
    }

    /// <summary>Ends the session; another may begin.</summary>
    public void Destroy() => Demand(Code.Destroy, 0, [], 0);

    private static byte[] ReadArguments(ulong handle, ulong offset, uint length) =>
        [.. Bytes(handle, offset), .. Bytes(length, 0U), .. Bytes(0UL), .. Bytes(0U, 0U)];

    private static byte[] ReleaseArguments(ulong handle) => [.. Bytes(handle), .. Bytes(0U, 0U), .. Bytes(0UL)];

    private byte[] Demand(Code code, ulong node, byte[] arguments, int room, bool isShorter = false)
    {
        int error = Request(code, node, arguments, [], room, out byte[] reply);
        Assert.That(error, Is.Zero, $"{code} of node {node}");
        if (!isShorter && code != Code.Initialize)
            Assert.That(reply, Has.Length.EqualTo(room), $"the reply to {code}");
        return reply;
    }

    private void Tell(PeerQueue queue, uint code, ulong node, byte[] arguments)
    {
        WriteHeader((Code)code, node, arguments.Length);
        arguments.CopyTo(_memory.Slice(_arguments, arguments.Length));
        queue.Submit(new(_header, RequestHeaderSize, false), new(_arguments, arguments.Length, false));
        Assert.That(queue.Take().Written, Is.Zero);
    }

    /// <returns>0 or a negated error number.</returns>
    private int Request(Code code, ulong node, byte[] arguments, byte[] data, int room, out byte[] reply, int extensions = 0)
    {
        ulong unique = WriteHeader(code, node, arguments.Length + data.Length, extensions);
        arguments.CopyTo(_memory.Slice(_arguments, arguments.Length));
        data.CopyTo(_memory.Slice(_data, data.Length));
        var buffers = new List<PeerBuffer> { new(_header, RequestHeaderSize, false) };
        Add(_arguments, arguments.Length, false);
        Add(_data, data.Length, false);
        Add(_reply, ReplyHeaderSize, true);
        Add(_data, room, true);
        _requests.Submit([.. buffers]);
        int written = _requests.Take().Written;

        Assert.That(written, Is.InRange(ReplyHeaderSize, ReplyHeaderSize + room), $"{code}: bytes written");
        Assert.That(_memory.Read<int>(_reply), Is.EqualTo(written), $"{code}: the reply's length");
        Assert.That(_memory.Read<ulong>(_reply + 8), Is.EqualTo(unique), $"{code}: the reply's number");
        reply = _memory.Slice(_data, written - ReplyHeaderSize).ToArray();
        return _memory.Read<int>(_reply + 4);

        void Add(GuestAddress address, int length, bool isWritable)
        {
            if (length > 0)
                buffers.Add(new PeerBuffer(address, length, isWritable));
        }
    }

    private ulong WriteHeader(Code code, ulong node, int length, int extensions = 0)
    {
        byte[] header =
        [
            .. Bytes((uint)(RequestHeaderSize + length), (uint)code), .. Bytes(++_unique, node),
            .. Bytes(Caller.User, Caller.Group, 0U, (uint)extensions / 8),
        ];
        header.CopyTo(_memory.Slice(_header, RequestHeaderSize));
        return _unique;
    }

    internal static byte[] Name(string name) => [.. Encoding.UTF8.GetBytes(name), 0];

    internal static byte[] Bytes(params ReadOnlySpan<uint> values) => MemoryMarshal.AsBytes(values).ToArray();

    internal static byte[] Bytes(params ReadOnlySpan<ulong> values) => MemoryMarshal.AsBytes(values).ToArray();

    internal static uint U32(byte[] bytes, int offset) => BinaryPrimitives.ReadUInt32LittleEndian(bytes.AsSpan(offset));

    internal static ulong U64(byte[] bytes, int offset) => BinaryPrimitives.ReadUInt64LittleEndian(bytes.AsSpan(offset));
}
