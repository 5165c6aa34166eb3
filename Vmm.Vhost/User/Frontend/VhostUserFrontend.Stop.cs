using System.Runtime.InteropServices;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Vhost.User.Frontend;

// The end of rings. Where memory shows whether a ring has ended, the back-end's word is not enough: some back-ends answer GET_VRING_BASE while
// requests are in flight, and write to guest memory long after that (docs/adr/0006-memory-is-quiet-when-it-can-be-seen-to-be.md).
public sealed partial class VhostUserFrontend
{
    private const int MaxWriters = 16;      // bounds the descriptors that a back-end which leaves again and again makes us keep
    private const int MaxPause = 10;        // milliseconds between two looks at a used index

    // Between the end of a dying process's connection and its own. All processes have it together: a vCPU may wait for it.
    private static readonly TimeSpan s_endPatience = TimeSpan.FromMilliseconds(100);

    // The back-ends that were left, or left, with requests of _memory in flight: their processes, null for one that is not known.
    private readonly List<Writer> _writers = [];

    /// <inheritdoc/>
    public bool MayWrite(GuestMemory memory)
    {
        lock (_options.Sync)
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            if (memory != _memory)
                return false;
            if (_writers.Count == 0)
                return false;
            var deadline = new Deadline(s_endPatience);
            _writers.RemoveAll(writer => writer.HasEnded(deadline));
            return _writers.Count > 0;
        }
    }

    private void StopRings(IEnumerable<Ring> rings, Deadline deadline)
    {
        var told = new List<Ring>();
        foreach (Ring ring in rings)
        {
            if (ring.Runs && ring.WasTold)
                told.Add(ring);
            ring.Runs = false;
        }
        if (told.Count == 0)
            return;
        bool isStopped = false;
        if (IsCancelled)
        {
            Leave($"{Name}: this process is about to end", Parting.NotStopped);
        }
        else if (_peer is { } peer)
        {
            if (_options.CompletesRequests && !IsPacked)
                WaitUntilIdle(peer, told, deadline);
            isStopped = Halt(peer, told, deadline);
        }
        foreach (Ring ring in told)
        {
            if (!isStopped)
                ring.Base = UsedIndex(ring);
            ring.WasTold = false;
        }
    }

    // The driver makes no more requests, and those that it has made are all completed soon. qemu-storage-daemon 7.2 no longer reports completions once
    // it was told to stop, so we wait for them first, for three quarters of the time. We do not wait for a ring with which the back-end cannot go
    // on: nothing more is completed there, and a hostile driver could hold the device's lock for all that time.
    private void WaitUntilIdle(FrontendPeer peer, List<Ring> rings, Deadline deadline)
    {
        IEnumerable<EventFd> errors = rings.Select(ring => ring.Config.Error).OfType<EventFd>().Distinct();
        PollEntry[] entries = [.. Waiting(peer), .. errors.Select(error => new PollEntry(error, PollEvents.Readable))];
        for (int pause = 1; !rings.TrueForAll(IsIdle) && deadline.Left > deadline.Total / 4; pause = Math.Min(2 * pause, MaxPause))
        {
            if (Poll.Wait(entries, pause) > 0)
                return;
        }
    }

    // For the end of the connection, and of this process.
    private PollEntry[] Waiting(FrontendPeer peer) => [new(peer.Session.Socket, PollEvents.None), new(_cancelled, PollEvents.Readable)];

    // Whether a split ring's requests have all come back.
    private bool IsIdle(Ring ring) => ReadIndex(ring.Config.DriverArea) == ReadIndex(ring.Config.DeviceArea);

    // Whether the rings have stopped, and their bases are known. If not, the back-end has been left.
    private bool Halt(FrontendPeer peer, List<Ring> rings, Deadline deadline)
    {
        uint[] bases;
        peer.Session.Deadline = deadline;
        try
        {
            bases = peer.Session.StopRings([.. rings.Select(ring => ring.Config.Index)], e => s_log.Warn("{Error}", e.Message));
        }
        catch (VhostUserException e)
        {
            Leave(e.Message, peer.Session.IsClosedByPeer ? Parting.Theirs : Parting.NotStopped);
            return false;
        }
        finally
        {
            peer.Session.Deadline = null;
        }
        for (int i = 0; i < rings.Count; i++)
            rings[i].Base = bases[i];
        if (FindUndrained(peer, rings, deadline, out bool isHungUp) is not { } undrained)
        {
            foreach (Ring ring in rings)
            {
                // Some say where they go on before they have stopped.
                if (!IsPacked)
                    ring.Base = UsedIndex(ring);
            }
            ForgetEarlierConnections(peer);
            return true;
        }
        Leave(
            isHungUp ? $"{Name}: the peer closed the connection before it had done all requests of ring {undrained.Config.Index}"
                : $"{Name}: says that ring {undrained.Config.Index} has stopped (0x{undrained.Base:x}), and has not done all that it took (0x{UsedIndex(undrained):x})",
            isHungUp ? Parting.Theirs : Parting.NotStopped);
        return false;
    }

    // Waits until what was taken from the rings has been given back.
    private Ring? FindUndrained(FrontendPeer peer, List<Ring> rings, Deadline deadline, out bool isHungUp)
    {
        PollEntry[] entries = Waiting(peer);
        isHungUp = false;
        for (int pause = 1; ; pause = Math.Min(2 * pause, MaxPause))
        {
            if (rings.Find(ring => !IsDrained(ring)) is not { } undrained)
                return null;
            if (isHungUp || deadline.Left == TimeSpan.Zero || entries[1].Happened != PollEvents.None || !CanDrain(undrained))
                return undrained;
            Poll.Wait(entries, pause);
            isHungUp = entries[0].Happened != PollEvents.None;
        }
    }

    // Whether the back-end has given all requests back. For a split ring, memory tells it. For a packed ring, the in-flight log does, or else the base
    // that the back-end says: one half is where it takes, the other where it gives back. DPDK leaves the second one out, as both are the same then.
    private bool IsDrained(Ring ring)
    {
        if (!IsPacked)
            return ring.Base <= ushort.MaxValue && (ushort)(ring.Base - UsedIndex(ring)) is var missing && (missing == 0 || missing > ring.Config.Size);
        if (_inflightFile is not { } file)
            return ring.Base >> 16 is var giving && (giving == 0 || giving == (ushort)ring.Base);
        ulong log = _inflight.MmapOffset + (ulong)ring.Config.Index * PackedInflight.SizeOf(_inflight.QueueSize);
        if (!PackedInflight.IsEmpty(file, log, _inflight.QueueSize))
            return false;
        ring.Base = (ushort)ring.Base * 0x0001_0001U;
        return true;
    }

    // Whether it is of use to look again.
    private bool CanDrain(Ring ring) => IsPacked ? _inflightFile is not null : ring.Base <= ushort.MaxValue;

    // Whether a ring runs on of which only the back-end that is left knows the place: how far a packed ring was worked, memory does not tell.
    private bool HasLostPlace => IsPacked && Array.Exists(_rings, ring => ring.Runs && ring.WasTold);

    // Where the next back-end begins: requests that were given back are done, and those that were taken only are taken again.
    private uint UsedIndex(Ring ring) => IsPacked ? ring.Base : ReadIndex(ring.Config.DeviceArea) ?? ring.Base;

    // The index of an available or used ring (VIRTIO 1.2 §2.7.6, §2.7.8).
    private ushort? ReadIndex(GuestAddress area) =>
        _memory is { } memory && memory.TrySlice(area, RingIndexOffset + sizeof(ushort), out Span<byte> head)
            ? Volatile.Read(ref MemoryMarshal.AsRef<ushort>(head[(int)RingIndexOffset..]))
            : null;

    // The connection of a back-end has ended, or is about to: notes whether it may go on writing to memory. One that has closed the connection
    // itself has left the rings, and has nothing to write when all requests are done.
    private void NoteWriter(FrontendPeer peer, Parting parting)
    {
        List<Ring> told = [.. _rings.Where(ring => ring.WasTold)];
        if (_memory is null || told.Count == 0)
            return;
        if (parting == Parting.Theirs && !IsPacked && told.TrueForAll(IsIdle))
            return;
        if (_writers.Count >= MaxWriters)
            ForgetWriters(new Writer(null, MayBeEnding: false));
        else if (parting != Parting.Theirs && _options.CompletesRequests)
            _writers.Add(new Writer(null, MayBeEnding: false));   // direct reads by io_uring may be written after the end of a disk's process
        else
            _writers.Add(new Writer(peer.TakeProcess(), parting == Parting.Theirs));
    }

    // A switch may close a port and open it again, while a network's buffers are in flight all the time. It is one process: when it has stopped all
    // rings of the new connection, it has nothing to write for the old one. A disk may have, whose requests take their time.
    private void ForgetEarlierConnections(FrontendPeer peer)
    {
        if (_options.CompletesRequests || peer.ProcessId is not { } id || Array.Exists(_rings, ring => ring.Runs))
            return;
        _writers.RemoveAll(writer => writer.MayBeEnding && writer.Forget(id));
    }

    private void ForgetWriters(params ReadOnlySpan<Writer> successors)
    {
        foreach (Writer writer in _writers)
            writer.Process?.Dispose();
        _writers.Clear();
        _writers.AddRange(successors);
    }

    private enum Parting
    {
        Theirs,       // the back-end closed the connection, or died
        Ours,         // we did
        NotStopped,   // we did, as it did not stop in time: it lives, and may be connected to again
    }

    private sealed record Writer(ProcessDescriptor? Process, bool MayBeEnding)
    {
        public bool HasEnded(Deadline deadline)
        {
            if (Process is null || !Process.HasEnded(MayBeEnding ? (int)deadline.Left.TotalMilliseconds : 0))
                return false;
            Process.Dispose();
            return true;
        }

        /// <summary>Returns whether it is process <paramref name="id"/>, and then it is not of use any more.</summary>
        public bool Forget(int id)
        {
            if (Process?.Id != id)
                return false;
            Process.Dispose();
            return true;
        }
    }
}
