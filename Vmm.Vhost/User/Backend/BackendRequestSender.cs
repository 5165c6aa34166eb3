using System.Runtime.InteropServices;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Vhost.User.Backend;

/// <summary>The channel by which a back-end asks something of its front-end (vhost-user.rst, "Back-end message types"). Any thread may use it,
/// but the one that serves the connection must not wait for an answer: the front-end may be waiting for its own.</summary>
public sealed class BackendRequestSender : IDisposable
{
    private readonly Lock _lock = new();
    private readonly Lock _changeLock = new();  // taken after _lock; no thread waits for an answer while it holds this one
    private readonly VhostUserConnection _connection;
    private readonly VhostUserProtocolFeatures _features;
    private readonly TimeSpan _deadline;
    private readonly EventFd _stop = new();
    private bool _isLost;
    private bool _isDisposed;
    private bool _isSuspended = true;
    private bool _hasChanged;                   // the configuration, while the device was suspended

    internal BackendRequestSender(VhostUserConnection connection, VhostUserProtocolFeatures features, TimeSpan deadline)
    {
        _connection = connection;
        _features = features;
        _deadline = deadline;
    }

    /// <summary>The configuration space has changed: the front-end reads it again and tells the driver. Not waited for. While no ring runs, nothing may be
    /// sent (vhost-user.rst, "Suspended device state"), and QEMU drops the message: it goes out when the first ring runs. Nothing is sent where the protocol
    /// feature <see cref="VhostUserProtocolFeatures.Config"/> was not agreed on: such a front-end does not read the configuration, and need not know the
    /// message (vhost-user.rst, "VHOST_USER_BACKEND_CONFIG_CHANGE_MSG").</summary>
    /// <exception cref="VhostUserException">The front-end is gone.</exception>
    public void ConfigurationChanged()
    {
        if ((_features & VhostUserProtocolFeatures.Config) == 0)
            return;
        lock (_lock)
        {
            if (_isLost)
                throw _connection.Lost("is gone");
            // Under this lock Suspend waits for a message that is on its way, and nothing is sent after it.
            lock (_changeLock)
            {
                if (_isSuspended)
                    _hasChanged = true;
                else
                    Ask(VhostUserBackendRequest.ConfigChange, [], [], waits: false);
            }
        }
    }

    /// <summary>Has the front-end map a file into one of the device's shared-memory regions, where nothing is mapped yet.</summary>
    /// <param name="region">The region's id.</param>
    /// <param name="offset">Where in the region.</param>
    /// <param name="file">The file; stays the caller's.</param>
    /// <param name="fileOffset">Where in the file.</param>
    /// <param name="length">Bytes.</param>
    /// <param name="isWritable">Whether the guest may write there.</param>
    /// <exception cref="VhostUserException">The front-end refused, or is gone.</exception>
    public void MapSharedMemory(byte region, ulong offset, FileDescriptor file, ulong fileOffset, ulong length, bool isWritable)
    {
        Require(VhostUserProtocolFeatures.Shmem | VhostUserProtocolFeatures.BackendSendFd);
        var payload = new ShmemMapPayload(region, fileOffset, offset, length, isWritable ? ShmemMapPayload.FlagWritable : 0);
        Ask(VhostUserBackendRequest.ShmemMap, MemoryMarshal.AsBytes(new ReadOnlySpan<ShmemMapPayload>(in payload)), [file], waits: true);
    }

    /// <summary>Takes such a mapping away; exactly one.</summary>
    /// <exception cref="VhostUserException">The front-end refused, or is gone.</exception>
    public void UnmapSharedMemory(byte region, ulong offset, ulong length)
    {
        Require(VhostUserProtocolFeatures.Shmem);
        var payload = new ShmemMapPayload(region, 0, offset, length, 0);
        Ask(VhostUserBackendRequest.ShmemUnmap, MemoryMarshal.AsBytes(new ReadOnlySpan<ShmemMapPayload>(in payload)), [], waits: true);
    }

    /// <summary>Closes it. Every later request throws <see cref="VhostUserException"/>, as it does when the front-end is gone.</summary>
    public void Dispose()
    {
        if (Interlocked.Exchange(ref _isDisposed, true))
            return;
        _stop.Signal();   // ends a wait for an answer, and with it the lock's
        lock (_lock)
        {
            _isLost = true;
            _connection.Dispose();
            _stop.Dispose();
        }
    }

    /// <summary>Ends whatever waits for an answer: the front-end is gone.</summary>
    internal void StopWaiting()
    {
        try
        {
            _stop.Signal();
        }
        catch (ObjectDisposedException)
        {
            // The device has closed the channel, and nobody waits any more.
        }
    }

    /// <summary>No ring runs: changes of the configuration are kept until <see cref="Resume"/>.</summary>
    internal void Suspend()
    {
        lock (_changeLock)
            _isSuspended = true;
    }

    /// <summary>A ring runs: sends what was kept.</summary>
    /// <exception cref="VhostUserException">The front-end is gone.</exception>
    internal void Resume()
    {
        lock (_changeLock)
        {
            _isSuspended = false;
            if (!_hasChanged)
                return;
            _hasChanged = false;
        }
        Ask(VhostUserBackendRequest.ConfigChange, [], [], waits: false);
    }

    /// <summary>Takes over what an earlier channel of the same front-end has kept.</summary>
    internal void TakeOver(BackendRequestSender earlier)
    {
        lock (earlier._changeLock)
            _hasChanged = earlier._hasChanged;
    }

    internal void Call(int ring) => AskForRing(VhostUserBackendRequest.VringCall, ring);

    internal void Fail(int ring) => AskForRing(VhostUserBackendRequest.VringErr, ring);

    private void AskForRing(VhostUserBackendRequest request, int ring)
    {
        var payload = new VringState((uint)ring, 0);
        Ask(request, MemoryMarshal.AsBytes(new ReadOnlySpan<VringState>(in payload)), [], waits: false);
    }

    private void Require(VhostUserProtocolFeatures features)
    {
        if ((_features & features) != features)
            throw new VhostUserException($"{_connection.Peer}: {features & ~_features} was not agreed on");
    }

    private void Ask(VhostUserBackendRequest request, ReadOnlySpan<byte> payload, ReadOnlySpan<FileDescriptor> descriptors, bool waits)
    {
        waits &= (_features & VhostUserProtocolFeatures.ReplyAck) != 0;
        lock (_lock)
        {
            if (_isLost)
                throw _connection.Lost("is gone");
            try
            {
                _connection.Send((uint)request, waits ? VhostUserFlags.NeedReply : 0, payload, descriptors, _deadline);
                if (waits)
                    TakeAnswer(request);
            }
            catch (VhostUserException e) when (e.IsConnectionLost)
            {
                _isLost = true;
                throw;
            }
        }
    }

    private void TakeAnswer(VhostUserBackendRequest request)
    {
        using VhostUserMessage answer = _connection.Receive(_deadline, _deadline, _stop)
            ?? throw _connection.Lost($"did not answer {request} for {_deadline.TotalSeconds:0.#} s");
        if (answer.Header.Request != (uint)request || (answer.Header.Flags & VhostUserFlags.Reply) == 0
            || answer.Payload.Length != PayloadSize.U64 || answer.DescriptorCount != 0)
        {
            throw _connection.Lost($"answers {request} by {answer.Header}");
        }
        if (answer.Read<ulong>() is ulong error and not 0)
            throw new VhostUserException($"{_connection.Peer}: {request} was refused ({error})");
    }
}
