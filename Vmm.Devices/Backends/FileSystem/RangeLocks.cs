using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Devices.Backends.FileSystem;

/// <summary>The guest's locks of ranges of one file. Each owner of locks has an opening of the file on the host, to which its locks belong there. Which ranges they are is noted here, too, because the
/// host's kernel tells of no deadlock between openings. Thread-safe.</summary>
/// <param name="all">The ranges of all files.</param>
internal sealed class RangeLocks(RangeCount all)
{
    private const int MostRanges = 4096;    // of an owner: the kernel looks at them one by one

    private readonly Lock _order = new();       // of calls that change locks, while the host is asked: one whose server does not answer holds up others of this file only
    private readonly Lock _lock = new();        // of what is noted here
    private readonly Dictionary<ulong, Owner> _owners = [];

    /// <summary>A request of an owner begins: its opening stays until <see cref="End"/>.</summary>
    /// <returns>Null where it has no opening.</returns>
    public Owner? Begin(ulong owner)
    {
        lock (_lock)
        {
            if (_owners.TryGetValue(owner, out Owner? found))
                found.Requests++;
            return found;
        }
    }

    /// <summary>The same, with an opening for it, which is closed if it has one meanwhile.</summary>
    public Owner Begin(ulong owner, FileDescriptor file)
    {
        bool isNew;
        Owner? found;
        lock (_lock)
        {
            isNew = !_owners.TryGetValue(owner, out found);
            if (isNew)
                _owners.Add(owner, found = new Owner(owner, file));
            found!.Requests++;
        }
        if (!isNew)
            file.Dispose();
        return found;
    }

    /// <summary>A request has ended. The opening of an owner that has no lock is closed: owners are as many as the guest says.</summary>
    /// <param name="owner">Whose.</param>
    /// <param name="waits">Whether the opening is kept, because the request will be tried again: <see cref="RemoveIdle"/> is called when it is not.</param>
    public void End(Owner owner, bool waits)
    {
        lock (_lock)
        {
            owner.Requests--;
            if (waits || !TryRemoveIdle(owner))
                return;
        }
        owner.File.Dispose();
    }

    /// <summary>A request of an owner does not wait any more.</summary>
    public void RemoveIdle(ulong owner)
    {
        Owner? found;
        lock (_lock)
        {
            if (!_owners.TryGetValue(owner, out found) || !TryRemoveIdle(found))
                return;
        }
        found.File.Dispose();
    }

    /// <summary>How many owners have an opening.</summary>
    public int Count
    {
        get
        {
            lock (_lock)
                return _owners.Count;
        }
    }

    /// <summary>Closes an owner's opening: its locks are gone.</summary>
    /// <returns>Whether there was one.</returns>
    public bool Remove(ulong owner)
    {
        Owner? removed;
        lock (_lock)
        {
            if (!_owners.Remove(owner, out removed))
                return false;
        }
        all.GiveBack(removed.Held.Count);
        // Outside of the lock: closing may ask a file server, and a search for a deadlock needs the lock meanwhile.
        removed.File.Dispose();
        return true;
    }

    /// <summary>Lets go of all openings.</summary>
    public void Clear(ref ReleasedDescriptors released)
    {
        lock (_lock)
        {
            foreach (Owner owner in _owners.Values)
            {
                all.GiveBack(owner.Held.Count);
                released.Add(owner.File);
            }
            _owners.Clear();
        }
    }

    /// <summary>Asks the host for a lock that keeps an owner from a range.</summary>
    /// <param name="owner">Who wants the range.</param>
    /// <param name="range">The range; then the lock, or one of type <see cref="OpenFileIo.Unlock"/> if there is none.</param>
    /// <param name="process">The guest's process that has it; 0 for a program of the host's, whose number says nothing in the guest.</param>
    /// <returns>0, or a negated error number.</returns>
    /// <exception cref="ObjectDisposedException">The owner's opening was closed meanwhile.</exception>
    public int Get(Owner owner, ref RangeLockRequest range, out uint process)
    {
        process = 0;
        using HeldDescriptor file = owner.File.Hold();
        int error = OpenFileIo.GetLock(in file, ref range);
        if (error < 0 || range.Type == OpenFileIo.Unlock)
            return error;
        LockedRange found = LockedRange.Of(in range);
        lock (_lock)
        {
            foreach (Owner holder in _owners.Values)
            {
                if (holder != owner && holder.Held.Contains(found))
                    process = holder.Process;
            }
            return 0;
        }
    }

    /// <summary>Takes or gives up a range. Does not wait.</summary>
    /// <param name="owner">Whose.</param>
    /// <param name="process">The guest's process that asks.</param>
    /// <param name="range">The range.</param>
    /// <returns>0, or a negated error number.</returns>
    public int Set(Owner owner, uint process, in RangeLockRequest range)
    {
        lock (_order)
        {
            HeldDescriptor held;
            int more;       // ranges than now, at most
            lock (_lock)
            {
                // It may have been closed meanwhile.
                if (_owners.GetValueOrDefault(owner.Id) != owner)
                    return range.Type == OpenFileIo.Unlock ? 0 : -Errnos.Ebadf;
                more = range.Type != OpenFileIo.Unlock ? 2 : Splits(owner.Held, LockedRange.Of(in range)) ? 1 : 0;
                if (more > 0 && (owner.Held.Count >= MostRanges || !all.TryTake(more)))
                    return -Errnos.Enolck;
                held = owner.File.Hold();
            }
            using HeldDescriptor file = held;
            int error = OpenFileIo.SetLock(in file, in range);
            lock (_lock)
            {
                // If the owner's opening was closed meanwhile, its locks are gone with it.
                if (error == 0 && _owners.GetValueOrDefault(owner.Id) == owner)
                {
                    // Linux does not say which process gives a lock up.
                    if (range.Type != OpenFileIo.Unlock)
                        owner.Process = process;
                    int before = owner.Held.Count;
                    Note(owner.Held, in range);
                    more -= owner.Held.Count - before;
                }
            }
            all.GiveBack(more);
            return error;
        }
    }

    /// <summary>Adds to <paramref name="blockers"/> whoever keeps <paramref name="owner"/> from a range, if it is not among them.</summary>
    /// <param name="owner">Who wants the range.</param>
    /// <param name="range">The range.</param>
    /// <param name="blockers">Those that are known so far.</param>
    /// <param name="steps">How many locks may still be looked at.</param>
    public void AddBlockers(ulong owner, in RangeLockRequest range, HashSet<ulong> blockers, ref int steps)
    {
        LockedRange wanted = LockedRange.Of(in range);
        lock (_lock)
        {
            foreach ((ulong other, Owner holder) in _owners)
            {
                if (--steps <= 0)
                    return;
                if (other == owner || blockers.Contains(other))
                    continue;
                foreach (LockedRange held in holder.Held)
                {
                    if (--steps <= 0)
                        return;
                    if (held.Touches(in wanted, distance: 0) && (held.IsExclusive || wanted.IsExclusive))
                    {
                        blockers.Add(other);
                        break;
                    }
                }
            }
        }
    }

    // Whether giving a range up makes two of one.
    private static bool Splits(List<LockedRange> held, LockedRange range) => held.Exists(each => each.Start < range.Start && each.End > range.End);

    // As the kernel does it: the new range replaces the parts of the owner's old ranges that it covers, and joins neighbours of the same kind.
    private static void Note(List<LockedRange> held, ref readonly RangeLockRequest range)
    {
        LockedRange added = LockedRange.Of(in range);
        bool isUnlock = range.Type == OpenFileIo.Unlock;
        for (int i = held.Count - 1; i >= 0; i--)
        {
            LockedRange each = held[i];
            if (!isUnlock && each.IsExclusive == added.IsExclusive && each.Touches(in added, distance: 1))
            {
                added = added with { Start = Math.Min(added.Start, each.Start), End = Math.Max(added.End, each.End) };
                held.RemoveAt(i);
            }
            else if (each.Touches(in added, distance: 0))
            {
                held.RemoveAt(i);
                if (each.Start < added.Start)
                    held.Add(each with { End = added.Start - 1 });
                if (each.End > added.End)
                    held.Add(each with { Start = added.End + 1 });
            }
        }
        if (!isUnlock)
            held.Add(added);
    }

    // Under the lock. Whether the caller is to close its opening.
    private bool TryRemoveIdle(Owner owner) =>
        owner.Requests == 0 && owner.Held.Count == 0 && _owners.GetValueOrDefault(owner.Id) == owner && _owners.Remove(owner.Id);

    /// <summary>An owner of locks that has an opening.</summary>
    internal sealed class Owner(ulong id, FileDescriptor file)
    {
        /// <summary>By what number the guest knows it.</summary>
        public ulong Id { get; } = id;

        /// <summary>The opening.</summary>
        public FileDescriptor File { get; } = file;

        /// <summary>Its ranges.</summary>
        public List<LockedRange> Held { get; } = [];

        /// <summary>The guest's process that asked for a lock last.</summary>
        public uint Process { get; set; }

        /// <summary>How many are under way.</summary>
        public int Requests { get; set; }
    }

    /// <summary>From the first byte to the last.</summary>
    internal readonly record struct LockedRange(long Start, long End, bool IsExclusive)
    {
        public static LockedRange Of(in RangeLockRequest range) =>
            new(range.Start, range.Length == 0 ? long.MaxValue : range.Start + (range.Length - 1), range.Type == OpenFileIo.WriteLock);

        public bool Touches(in LockedRange other, long distance) => Start - distance <= other.End && other.Start - distance <= End;
    }
}
