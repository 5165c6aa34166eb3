using System.Collections.Concurrent;
using System.Runtime.InteropServices;
using NUnit.Framework;
using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Tests.Fakes;

/// <summary>A vhost-user back-end that works no ring: it writes down what it is told, and answers as one does, or as its script has it.
/// It serves one connection after another, on a thread of its own.</summary>
internal sealed class FakeBackend : IDisposable
{
    public const ulong DefaultFeatures = VirtioFeatures.Version1 | VirtioFeatures.VhostUserProtocolFeatures | VirtioFeatures.RingPacked
        | VirtioFeatures.EventIndex | 1;

    public const VhostUserProtocolFeatures DefaultProtocolFeatures =
        VhostUserProtocolFeatures.Mq | VhostUserProtocolFeatures.ReplyAck | VhostUserProtocolFeatures.Config
        | VhostUserProtocolFeatures.BackendReq | VhostUserProtocolFeatures.BackendSendFd | VhostUserProtocolFeatures.ResetDevice
        | VhostUserProtocolFeatures.ConfigureMemSlots | VhostUserProtocolFeatures.Status | VhostUserProtocolFeatures.Shmem;

    private const ulong InflightSize = 4096;

    private static readonly TimeSpan s_deadline = TimeSpan.FromSeconds(10);

    private readonly Lock _lock = new();
    private readonly EventFd _stop = new();
    private readonly UnixListener? _listener;
    private readonly string _path;
    private readonly Dictionary<uint, FileDescriptor> _calls = [];
    private readonly Dictionary<uint, uint> _bases = [];
    private ulong _status;
    private Thread? _thread;
    private VhostUserConnection? _connection;
    private VhostUserConnection? _requests;
    private int _connections;

    /// <summary>Listens on a path, or is ready to connect to it.</summary>
    public FakeBackend(string path, bool listens = true)
    {
        _path = path;
        _listener = listens ? UnixListener.Listen(path) : null;
    }

    public ulong Features { get; init; } = DefaultFeatures;

    public VhostUserProtocolFeatures ProtocolFeatures { get; init; } = DefaultProtocolFeatures;

    public byte[] Config { get; set; } = [1, 2, 3, 4, 5, 6, 7, 8];

    public ulong QueueNum { get; init; } = 4;

    /// <summary>Bits of the status that it does not take, or adds of its own.</summary>
    public byte RefusedStatus { get; set; }

    /// <summary>See <see cref="RefusedStatus"/>.</summary>
    public byte AddedStatus { get; set; }

    /// <summary>What it does instead of answering; it returns false to have it answered as usual.</summary>
    public Func<VhostUserMessage, VhostUserConnection, bool>? Script { get; set; }

    /// <summary>At which message, from 1, a connection is closed without an answer; by the connection's number, from 1. 0: at none.</summary>
    public Func<int, int>? DiesAt { get; init; }

    /// <summary>What was said, over all connections.</summary>
    public ConcurrentQueue<Said> Heard { get; } = [];

    /// <summary>How many connections there were.</summary>
    public int Connections => Volatile.Read(ref _connections);

    /// <summary>What the in-flight log that it was given begins with.</summary>
    public ulong InflightMark { get; private set; }

    /// <summary>A path for a socket.</summary>
    public static string NewPath() => Path.Combine(Path.GetTempPath(), $"vmm-{Guid.NewGuid():N}.sock");

    /// <summary>Begins.</summary>
    public FakeBackend Start()
    {
        _thread = new Thread(Run) { IsBackground = true, Name = "fake back-end" };
        _thread.Start();
        return this;
    }

    /// <summary>The names of what was said on one connection.</summary>
    public VhostUserRequest[] Names(int connection) => [.. Heard.Where(said => said.Connection == connection).Select(said => said.Request)];

    /// <summary>What was said of that kind on one connection.</summary>
    public Said[] All(int connection, VhostUserRequest request) =>
        [.. Heard.Where(said => said.Connection == connection && said.Request == request)];

    /// <summary>Closes the connection.</summary>
    public void Kill()
    {
        lock (_lock)
            _connection?.Socket.Shutdown();
    }

    /// <summary>Makes a request of its own, and waits for its answer if it wants one.</summary>
    public ulong? Ask(VhostUserBackendRequest request, ReadOnlySpan<byte> payload, bool needReply = true, params ReadOnlySpan<FileDescriptor> descriptors)
    {
        VhostUserConnection? requests = null;   // the field is null again once the connection has ended
        Eventually.True(() => (requests = Volatile.Read(ref _requests)) is not null, () => "there is no channel for requests");
        requests!.Send((uint)request, needReply ? VhostUserFlags.NeedReply : 0, payload, descriptors, s_deadline);
        if (!needReply)
            return null;
        using VhostUserMessage reply = requests.Receive(s_deadline, s_deadline) ?? throw new TimeoutException($"{request} is not answered");
        Assert.That(reply.Header, Is.EqualTo(new VhostUserHeader((uint)request, VhostUserFlags.Version1 | VhostUserFlags.Reply, 8)));
        return reply.Read<ulong>();
    }

    public void Dispose()
    {
        _stop.Signal();
        Kill();
        _thread?.Join();
        _listener?.Dispose();
        _stop.Dispose();
    }

    private void Run()
    {
        while (NextConnection() is { } socket)
        {
            lock (_lock)
                _connection = new VhostUserConnection(socket, "front-end");
            int number = Interlocked.Increment(ref _connections);
            try
            {
                Serve(number, DiesAt?.Invoke(number) ?? 0);
            }
            catch (VhostUserException)
            {
                // The front-end is gone, or the script has closed the connection.
            }
            lock (_lock)
            {
                _connection.Dispose();
                _connection = null;
            }
            Volatile.Read(ref _requests)?.Dispose();
            Volatile.Write(ref _requests, null);
            foreach (FileDescriptor call in _calls.Values)
                call.Dispose();
            _calls.Clear();
            _bases.Clear();
            _status = 0;
        }
    }

    private UnixSocket? NextConnection()
    {
        PollEntry[] entries = [new(_stop, PollEvents.Readable), new(_listener, PollEvents.Readable)];
        while (true)
        {
            Poll.Wait(entries, _listener is null ? 5 : -1);
            if (entries[0].Happened != PollEvents.None)
                return null;
            UnixSocket? socket = null;
            if (_listener is not null)
                socket = _listener.TryAccept();
            else
                UnixSocket.TryConnect(_path, out socket);
            if (socket is not null)
                return socket;
        }
    }

    private void Serve(int number, int diesAt)
    {
        for (int count = 1; ; count++)
        {
            using VhostUserMessage? message = _connection!.Receive(Timeout.InfiniteTimeSpan, s_deadline, _stop);
            if (message is null)
                return;
            var request = (VhostUserRequest)message.Header.Request;
            MessageRule rule = MessageRule.Find(request) ?? throw new VhostUserException($"unknown request {request}", true);
            Heard.Enqueue(new Said(
                number, request, message.Payload.ToArray(), message.DescriptorCount, (message.Header.Flags & VhostUserFlags.NeedReply) != 0));
            if (count == diesAt)
                return;
            if (message.Header.Size < rule.MinSize || message.Header.Size > rule.MaxSize
                || message.DescriptorCount < rule.MinDescriptors || message.DescriptorCount > rule.MaxDescriptors
                || (rule.Needs & ~ProtocolFeatures) != 0)
            {
                throw new VhostUserException($"a wrong {request}", true);
            }
            if (Script?.Invoke(message, _connection) != true)
                Answer(message, request, rule);
        }
    }

    private void Answer(VhostUserMessage message, VhostUserRequest request, in MessageRule rule)
    {
        switch (request)
        {
            case VhostUserRequest.GetFeatures:
                Reply(message, Features);
                return;
            case VhostUserRequest.GetProtocolFeatures:
                Reply(message, (ulong)ProtocolFeatures);
                return;
            case VhostUserRequest.GetStatus:
                Reply(message, (_status & ~(ulong)RefusedStatus) | AddedStatus);
                return;
            case VhostUserRequest.SetStatus:
                _status = message.Read<ulong>();
                break;
            case VhostUserRequest.GetQueueNum:
                Reply(message, QueueNum);
                return;
            case VhostUserRequest.GetMaxMemSlots:
                Reply(message, 32UL);
                return;
            case VhostUserRequest.GetShmemConfig:
                Reply(message, new byte[PayloadSize.ShmemConfig]);   // it has no regions
                return;
            case VhostUserRequest.GetConfig:
                bool has = message.Payload.Length - ConfigHeader.WireSize <= Config.Length;
                Reply(message, has ? [.. message.Payload[..ConfigHeader.WireSize], .. Config.AsSpan(0, message.Payload.Length - ConfigHeader.WireSize)] : []);
                return;
            case VhostUserRequest.GetInflightFd:
                using (FileDescriptor file = MemFd.Create("inflight", InflightSize))
                using (MemoryMapping mapping = MemoryMapping.Map(file, InflightSize, MappingAccess.SharedReadWrite))
                {
                    // What is remembered: which back-end made it.
                    MarkOf(mapping) = InflightMark = (ulong)Random.Shared.NextInt64();
                    InflightPayload asked = message.Read<InflightPayload>();
                    byte[] payload = new byte[InflightPayload.WireSize];
                    MemoryMarshal.Write(payload, asked with { MmapSize = InflightSize });
                    Reply(message, payload, file);
                }
                return;
            case VhostUserRequest.SetInflightFd:
                using (FileDescriptor file = message.TakeDescriptor()!)
                using (MemoryMapping mapping = MemoryMapping.Map(file, InflightSize, MappingAccess.SharedReadWrite))
                    InflightMark = MarkOf(mapping);
                break;
            case VhostUserRequest.SetBackendReqFd:
                using (FileDescriptor end = message.TakeDescriptor()!)
                    Volatile.Write(ref _requests, new VhostUserConnection(Duplicate(end), "front-end"));
                break;
            case VhostUserRequest.SetVringBase:
                _bases[message.Read<VringState>().Index] = message.Read<VringState>().Num;
                break;
            case VhostUserRequest.GetVringBase:
                uint ring = message.Read<VringState>().Index;
                var state = new VringState(ring, _bases.GetValueOrDefault(ring));
                Reply(message, MemoryMarshal.AsBytes(new ReadOnlySpan<VringState>(in state)));
                return;
            default:
                break;
        }
        if ((message.Header.Flags & VhostUserFlags.NeedReply) != 0)
            Reply(message, 0UL);
        else if (rule.HasReply)
            throw new NotSupportedException($"{request} has an answer, which the fake does not know");
    }

    private void Reply(VhostUserMessage message, ulong number) =>
        Reply(message, MemoryMarshal.AsBytes(new ReadOnlySpan<ulong>(in number)));

    private void Reply(VhostUserMessage message, ReadOnlySpan<byte> payload, params ReadOnlySpan<FileDescriptor> descriptors) =>
        _connection!.Send(message.Header.Request, VhostUserFlags.Reply, payload, descriptors, s_deadline);

    private static unsafe ref ulong MarkOf(MemoryMapping mapping) => ref *(ulong*)mapping.Pointer;

    // A received socket is a mere descriptor: a socket of its own is made of its number.
    private static UnixSocket Duplicate(FileDescriptor descriptor)
    {
        using var handle = new FileDescriptor(Tmds.Linux.LibC.dup(descriptor.Number), ownsHandle: false);
        return UnixSocket.Adopt(handle.Number);
    }

    /// <summary>A request of the front-end's.</summary>
    internal sealed record Said(int Connection, VhostUserRequest Request, byte[] Payload, int Descriptors, bool NeedReply)
    {
        public ulong Number => BitConverter.ToUInt64(Payload);

        public VringState State => MemoryMarshal.Read<VringState>(Payload);
    }
}
