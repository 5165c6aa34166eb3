using System.Runtime.InteropServices;

namespace Vmm.Vhost.Native;

/// <summary>An io_uring (io_uring(7)) for one file: reads, writes and what else takes time is put into a queue, handed to the kernel by
/// one call for many, and found in another queue when it is done. For one thread at a time.</summary>
/// <remarks>Nothing here allocates after the constructor. The memory that an operation names must stay until the operation is done.
/// <para>An io_uring does what system calls do, and no seccomp filter sees it. So the kernel is told what this one may do before it can do
/// anything (IORING_REGISTER_RESTRICTIONS, Linux 5.10): the operations of <see cref="IoUringOperation"/>, on its one file, and no further
/// registrations. Whoever takes the process over can do no more with it.</para></remarks>
public sealed unsafe partial class IoUring : IDisposable
{
    /// <summary>The most operations at a time.</summary>
    public const int MaxEntries = 16384;

    // What waits to be handed to the kernel at a time; more than that is handed over in several calls.
    private const int MaxSubmissions = 128;

    // As much as this kernel has: completions do not interrupt the thread (5.19). SubmitAll: one bad entry does not hold up the others (5.18).
    // Not SetupSingleIssuer and SetupDeferTaskrun: such a ring belongs to one thread for ever, but it is made before the process is confined, and each
    // time the driver starts its device another thread uses it.
    private static readonly uint[] s_flags =
    [
        IoUringAbi.SetupSubmitAll | IoUringAbi.SetupCoopTaskrun | IoUringAbi.SetupTaskrunFlag,
        0,
    ];

    private static readonly IoUringRestriction[] s_restrictions =
    [
        .. Enum.GetValues<IoUringOperation>().Select(operation => new IoUringRestriction(IoUringAbi.RestrictionSqeOp, (byte)operation)),
        new(IoUringAbi.RestrictionSqeFlagsRequired, IoUringAbi.SqeFixedFile),
        new(IoUringAbi.RestrictionSqeFlagsAllowed, IoUringAbi.SqeFixedFile),
        // From Linux 7.0 on registrations are restricted only where one is named. This one does nothing to a ring that is enabled (EBADFD).
        new(IoUringAbi.RestrictionRegisterOp, (byte)IoUringAbi.RegisterEnableRings),
    ];

    private readonly FileDescriptor _ring;
    private readonly MemoryMapping _rings;
    private readonly MemoryMapping _entries;
    private readonly uint* _sqHead;
    private readonly uint* _sqTail;
    private readonly uint* _sqFlags;
    private readonly uint* _cqHead;
    private readonly uint* _cqTail;
    private readonly uint* _cqFlags;
    private readonly IoUringCqe* _completions;
    private readonly IoUringSqe* _submissions;
    private readonly uint _sqMask;
    private readonly uint _cqMask;
    private uint _tail;
    private uint _pushed;

    /// <summary>Makes a ring for <paramref name="file"/>.</summary>
    /// <param name="entries">Operations at a time, at most <see cref="MaxEntries"/>; more than that many may never be under way.</param>
    /// <param name="file">The file that all operations are on.</param>
    /// <param name="ready">Signalled when something is done, while <see cref="SetNotifications"/> has it so.</param>
    /// <exception cref="ErrnoException">The kernel has no io_uring (ENOSYS) or cannot restrict it (EINVAL), does not let this process use it
    /// (EPERM), or has no memory left for it (ENOMEM).</exception>
    public IoUring(int entries, FileDescriptor file, EventFd ready)
    {
        _ring = Setup(entries, out IoUringParams parameters);
        try
        {
            if ((parameters.Features & (IoUringAbi.FeatureSingleMmap | IoUringAbi.FeatureNoDrop))
                != (IoUringAbi.FeatureSingleMmap | IoUringAbi.FeatureNoDrop))
            {
                throw new ErrnoException("io_uring_setup", Errnos.Enosys, "this kernel's io_uring is too old");
            }
            ulong size = Math.Max(
                parameters.SqOff.Array + (ulong)parameters.SqEntries * sizeof(uint),
                parameters.CqOff.Cqes + (ulong)parameters.CqEntries * (ulong)sizeof(IoUringCqe));
            _rings = MemoryMapping.Map(_ring, size, MappingAccess.SharedReadWrite, IoUringAbi.OffsetSqRing);
            _entries = MemoryMapping.Map(_ring, (ulong)parameters.SqEntries * (ulong)sizeof(IoUringSqe), MappingAccess.SharedReadWrite,
                IoUringAbi.OffsetSqes);

            // SAFETY: the kernel gave these offsets for the mapping that was just made of the size they imply.
            byte* rings = _rings.Pointer;
            _sqHead = (uint*)(rings + parameters.SqOff.Head);
            _sqTail = (uint*)(rings + parameters.SqOff.Tail);
            _sqFlags = (uint*)(rings + parameters.SqOff.Flags);
            _cqHead = (uint*)(rings + parameters.CqOff.Head);
            _cqTail = (uint*)(rings + parameters.CqOff.Tail);
            _cqFlags = (uint*)(rings + parameters.CqOff.Flags);
            _completions = (IoUringCqe*)(rings + parameters.CqOff.Cqes);
            _submissions = (IoUringSqe*)_entries.Pointer;
            _sqMask = parameters.SqEntries - 1;
            _cqMask = parameters.CqEntries - 1;
            uint* array = (uint*)(rings + parameters.SqOff.Array);
            for (uint i = 0; i < parameters.SqEntries; i++)
                array[i] = i;

            Register(IoUringAbi.RegisterFiles, file, "IORING_REGISTER_FILES");
            Register(IoUringAbi.RegisterEventFd, ready, "IORING_REGISTER_EVENTFD");
            Restrict();
            SetNotifications(false);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Whether this process may have a ring: 0, or the error number with which the kernel refuses it.</summary>
    public static int Probe()
    {
        try
        {
            Setup(1, out _).Dispose();
            return 0;
        }
        catch (ErrnoException e)
        {
            return e.Errno;
        }
    }

    /// <summary>Puts a read into the queue. <paramref name="vectors"/>, in native memory, say where to.</summary>
    public void Read(Span<IoVector> vectors, ulong offset, ulong userData) =>
        Transfer(IoUringOperation.Read, IoUringOperation.ReadV, vectors, offset, userData);

    /// <summary>Puts a write into the queue. <paramref name="vectors"/>, in native memory, say where from.</summary>
    public void Write(Span<IoVector> vectors, ulong offset, ulong userData) =>
        Transfer(IoUringOperation.Write, IoUringOperation.WriteV, vectors, offset, userData);

    /// <summary>Puts an fdatasync(2) into the queue.</summary>
    public void Sync(ulong userData)
    {
        IoUringSqe* entry = Next(IoUringOperation.Fsync, userData);
        entry->RwFlags = IoUringAbi.FsyncDataSync;
    }

    /// <summary>Puts a fallocate(2) into the queue.</summary>
    public void Allocate(AllocateMode mode, ulong offset, ulong length, ulong userData)
    {
        IoUringSqe* entry = Next(IoUringOperation.Fallocate, userData);
        entry->Off = offset;
        entry->Addr = length;
        entry->Len = (uint)mode;
    }

    /// <summary>Hands the queue to the kernel, and has it do what it can at once.</summary>
    /// <param name="wait">Waits until at least so many are done, counting those not taken yet.</param>
    /// <exception cref="ErrnoException">The kernel refused.</exception>
    public void Push(int wait = 0)
    {
        ThrowIfDisposed();
        Volatile.Write(ref *_sqTail, _tail);
        uint minimum = (uint)wait;
        do
        {
            int result = SystemEnter(IoUringAbi.EnterCall, _ring, _tail - _pushed, minimum, IoUringAbi.EnterGetEvents, null, 0);
            if (result >= 0)
            {
                _pushed += (uint)result;
                continue;
            }
            int errno = Marshal.GetLastPInvokeError();
            // EAGAIN, EBUSY: no memory for a request for now, or completions are to be taken first, which the queue's size rules out.
            if (errno is not (Errnos.Eintr or Errnos.Eagain or Errnos.Ebusy))
                throw new ErrnoException("io_uring_enter", errno);
        }
        while (_pushed != _tail);
    }

    /// <summary>Whether the kernel has something to be got by <see cref="Push"/>.</summary>
    public bool HasWork => !_ring.IsClosed && (_tail != _pushed || (Volatile.Read(ref *_sqFlags) & (IoUringAbi.SqTaskrun | IoUringAbi.SqCqOverflow)) != 0);

    /// <summary>Whether something is done.</summary>
    public bool HasCompletions => !_ring.IsClosed && *_cqHead != Volatile.Read(ref *_cqTail);

    /// <summary>Takes what is done.</summary>
    /// <param name="userData">As it was given.</param>
    /// <param name="result">As the system call's; less than 0: the negated error number.</param>
    /// <returns>False if nothing is.</returns>
    public bool TryTake(out ulong userData, out int result)
    {
        ThrowIfDisposed();
        uint head = *_cqHead;
        if (head == Volatile.Read(ref *_cqTail))
        {
            userData = 0;
            result = 0;
            return false;
        }
        // SAFETY: inside the mapping: the mask is the kernel's.
        IoUringCqe* completion = _completions + (head & _cqMask);
        userData = completion->UserData;
        result = completion->Res;
        Volatile.Write(ref *_cqHead, head + 1);
        return true;
    }

    /// <summary>Has the eventfd signalled for what is done from now on, or not. After turning it on, look once more: what was done
    /// before signals nothing.</summary>
    public void SetNotifications(bool enabled)
    {
        ThrowIfDisposed();
        Volatile.Write(ref *_cqFlags, enabled ? 0 : IoUringAbi.CqEventFdDisabled);
        Interlocked.MemoryBarrier();
    }

    /// <summary>Gives the ring back. Nothing must be under way, or its memory must stay.</summary>
    public void Dispose()
    {
        _entries?.Dispose();
        _rings?.Dispose();
        _ring.Dispose();
    }

    // The memory of the queues is unmapped then.
    private void ThrowIfDisposed() => ObjectDisposedException.ThrowIf(_ring.IsClosed, this);

    private static FileDescriptor Setup(int entries, out IoUringParams parameters)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(entries);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(entries, MaxEntries);
        int errno = Errnos.Einval;
        for (int i = 0; i < s_flags.Length && errno == Errnos.Einval; i++)
        {
            parameters = new IoUringParams
            {
                Flags = s_flags[i] | IoUringAbi.SetupDisabled | IoUringAbi.SetupCqSize,
                CqEntries = (uint)entries,
            };
            int fd;
            // SAFETY: the kernel fills the structure; it makes the descriptor close-on-exec.
            fixed (IoUringParams* pointer = &parameters)
                fd = SystemSetup(IoUringAbi.SetupCall, (uint)Math.Min(entries, MaxSubmissions), pointer);
            if (fd >= 0)
                return new FileDescriptor(fd);
            errno = Marshal.GetLastPInvokeError();
        }
        throw new ErrnoException("io_uring_setup", errno);
    }

    private void Transfer(IoUringOperation single, IoUringOperation several, Span<IoVector> vectors, ulong offset, ulong userData)
    {
        bool isSingle = vectors.Length == 1 && vectors[0].Length <= int.MaxValue;
        IoUringSqe* entry = Next(isSingle ? single : several, userData);
        entry->Off = offset;
        if (isSingle)
        {
            entry->Addr = (ulong)vectors[0].Address;
            entry->Len = (uint)vectors[0].Length;
            return;
        }
        // SAFETY: not on the heap, by the caller's word, so it does not move.
        entry->Addr = (ulong)(nint)System.Runtime.CompilerServices.Unsafe.AsPointer(ref MemoryMarshal.GetReference(vectors));
        entry->Len = (uint)vectors.Length;
    }

    /// <summary>The next entry of the queue, for <paramref name="operation"/> on the ring's file.</summary>
    internal IoUringSqe* Next(IoUringOperation operation, ulong userData)
    {
        ThrowIfDisposed();
        if (_tail - Volatile.Read(ref *_sqHead) > _sqMask)
            Push();
        // SAFETY: inside the mapping: the mask is the kernel's.
        IoUringSqe* entry = _submissions + (_tail++ & _sqMask);
        *entry = new IoUringSqe { Opcode = operation, Flags = IoUringAbi.SqeFixedFile, UserData = userData };
        return entry;
    }

    // Before the ring is enabled: until then it does nothing, and the kernel takes no restrictions later.
    private void Restrict()
    {
        fixed (IoUringRestriction* restrictions = s_restrictions)
        {
            // SAFETY: pinned, and as many as the count says.
            if (SystemRegister(IoUringAbi.RegisterCall, _ring, IoUringAbi.RegisterRestrictions, restrictions, (uint)s_restrictions.Length) < 0)
                throw new ErrnoException("io_uring_register(IORING_REGISTER_RESTRICTIONS)", Marshal.GetLastPInvokeError());
        }
        if (SystemRegister(IoUringAbi.RegisterCall, _ring, IoUringAbi.RegisterEnableRings, null, 0) < 0)
            throw new ErrnoException("io_uring_register(IORING_REGISTER_ENABLE_RINGS)", Marshal.GetLastPInvokeError());
    }

    private void Register(uint operation, FileDescriptor descriptor, string name)
    {
        using HeldDescriptor held = descriptor.Hold();
        int number = held.Number;
        // SAFETY: an array of one descriptor number.
        if (SystemRegister(IoUringAbi.RegisterCall, _ring, operation, &number, 1) < 0)
            throw new ErrnoException($"io_uring_register({name})", Marshal.GetLastPInvokeError());
    }

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static partial int SystemSetup(nint number, uint entries, IoUringParams* parameters);

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static partial int SystemEnter(nint number, FileDescriptor ring, uint toSubmit, uint minComplete, uint flags, void* argument, nuint size);

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static partial int SystemRegister(nint number, FileDescriptor ring, uint operation, void* argument, uint count);
}
