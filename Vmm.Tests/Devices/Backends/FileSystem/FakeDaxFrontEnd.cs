using Vmm.Devices.Backends.FileSystem;
using Vmm.Vhost.Native;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Backend;
using Vmm.Vhost.User.Frontend;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Tests.Devices.Backends.FileSystem;

/// <summary>A front-end that keeps account of what a back-end maps into the guest, and maps nothing itself. It refuses what a real one refuses.</summary>
internal sealed class FakeDaxFrontEnd : IVhostUserBackendRequests, IDisposable
{
    private const ulong PageSize = 4096;
    private const VhostUserProtocolFeatures Agreed =
        VhostUserProtocolFeatures.BackendReq | VhostUserProtocolFeatures.BackendSendFd | VhostUserProtocolFeatures.ReplyAck | VhostUserProtocolFeatures.Shmem;

    private readonly ulong _length;
    private readonly BackendRequestReceiver _served;
    private readonly EventFd _stop = new();
    private readonly Thread _thread;
    private readonly Lock _lock = new();
    private readonly Dictionary<ulong, ulong> _mapped = [];
    private readonly Dictionary<ulong, ulong> _fileOffsets = [];
    private readonly List<string> _refused = [];

    /// <summary>One with a window of <paramref name="length"/> bytes.</summary>
    public FakeDaxFrontEnd(ulong length)
    {
        _length = length;
        _served = BackendRequestReceiver.Create("the back-end", Agreed, this, out FileDescriptor theirs);
        Channel = new BackendRequestSender(new VhostUserConnection((UnixSocket)theirs, "the front-end"), Agreed, TimeSpan.FromSeconds(20));
        _thread = new Thread(Serve) { IsBackground = true };
        _thread.Start();
    }

    /// <summary>The back-end's end.</summary>
    public BackendRequestSender Channel { get; }

    /// <summary>Who looks at each file that is mapped, and says whether it may be.</summary>
    public Func<FileDescriptor, bool> MayMap { get; init; } = static _ => true;

    /// <summary>What is mapped: where, and how many bytes.</summary>
    public (ulong Offset, ulong Length)[] Mapped
    {
        get
        {
            lock (_lock)
                return [.. _mapped.Select(mapping => (mapping.Key, mapping.Value)).Order()];
        }
    }

    /// <summary>The same with what is mapped there: where in its file it begins.</summary>
    public (ulong Offset, ulong Length, ulong FileOffset)[] MappedParts
    {
        get
        {
            lock (_lock)
                return [.. _mapped.Select(mapping => (mapping.Key, mapping.Value, _fileOffsets[mapping.Key])).Order()];
        }
    }

    /// <summary>What was refused: a sound back-end asks for nothing of the kind.</summary>
    public string[] Refused
    {
        get
        {
            lock (_lock)
                return [.. _refused];
        }
    }

    /// <summary>The device is reset: the front-end takes everything away by itself.</summary>
    public void Clear()
    {
        lock (_lock)
            _mapped.Clear();
    }

    public bool MapShared(in ShmemMapPayload mapping, FileDescriptor file)
    {
        (ulong offset, ulong length, ulong fileOffset) = (mapping.ShmOffset, mapping.Length, mapping.FdOffset);
        lock (_lock)
        {
            bool isRange = mapping.ShmId == DaxWindow.Region && length != 0 && (offset | length | fileOffset) % PageSize == 0 && offset <= _length && length <= _length - offset;
            if (!isRange || _mapped.Any(other => offset < other.Key + other.Value && other.Key < offset + length) || !MayMap(file))
            {
                _refused.Add($"map {mapping}");
                return false;
            }
            _mapped.Add(offset, length);
            _fileOffsets[offset] = fileOffset;
            return true;
        }
    }

    public bool UnmapShared(in ShmemMapPayload mapping)
    {
        lock (_lock)
        {
            if (_mapped.TryGetValue(mapping.ShmOffset, out ulong length) && length == mapping.Length)
                return _mapped.Remove(mapping.ShmOffset);
            _refused.Add($"unmap {mapping}");
            return false;
        }
    }

    public void Dispose()
    {
        _stop.Signal();
        _thread.Join();
        Channel.Dispose();
        _served.Dispose();
        _stop.Dispose();
    }

    private void Serve()
    {
        while (true)
        {
            Span<PollEntry> entries = [new PollEntry(_served.Socket, PollEvents.Readable), new PollEntry(_stop, PollEvents.Readable)];
            Poll.Wait(entries, -1);
            if (entries[1].Happened != PollEvents.None)
                return;
            _served.Serve();
        }
    }
}
