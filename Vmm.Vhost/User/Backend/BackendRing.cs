using Vmm.Vhost.Native;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Vhost.User.Backend;

/// <summary>A ring that runs: requests come from it and go back to it. For the ring's thread only, and until its handler is disposed: its
/// memory may be gone afterwards, and whatever else calls it gets an exception.</summary>
public sealed class BackendRing
{
    private static readonly BoundedLog s_log = new("Vmm.Vhost.User.Backend");

    // So many requests are taken in one turn, however fast the driver makes new ones: others of the thread want their turn too.
    private const int TurnLimit = 256;

    // So many are completed before the driver sees them, if nobody calls it before: it may look at the ring without being called.
    private const int CompletionBatch = 8;

    private readonly VhostUserDevice _device;
    private VirtQueue _queue;
    private int _turnLeft;
    private int _unpublished;
    private bool _sawEmpty;
    private bool _wasCut;
    private int _thread;     // the one that works it; 0 before there is one
    private bool _hasEnded;

    internal BackendRing(VhostUserDevice device, int index, ulong features, VirtQueue queue)
    {
        _device = device;
        Index = index;
        Features = features;
        _queue = queue;
    }

    /// <summary>Its number, from 0.</summary>
    public int Index { get; }

    /// <summary>Descriptors in it; so many requests can be taken at most, and <see cref="DescriptorChain.Head"/> is less than this. A request can have more
    /// buffers (<see cref="VirtQueue.MaxChainLength"/>).</summary>
    public int Size => _queue.Size;

    /// <summary>The feature bits that the driver and the device agreed on (VIRTIO 1.2 §2.2), as the front-end told by SET_FEATURES: bits of <see cref="VirtioFeatures"/> and of the device's own type.</summary>
    public ulong Features { get; }

    /// <summary>Whether the driver used the ring before this start: it does not start at its beginning, or its in-flight log is not new. What
    /// the driver chose for the device then holds on, and a process that was not there does not know it.</summary>
    public bool IsContinued { get; internal init; }

    /// <summary>Requests that were taken and not completed.</summary>
    public int InFlight => _queue.Taken;

    /// <summary>Requests that wait in the ring, as far as it says how many (<see cref="VirtQueue.Waiting"/>). It is the driver's word: to choose
    /// by, not to count on.</summary>
    public int Waiting
    {
        get
        {
            Check();
            return _queue.Waiting;
        }
    }

    /// <summary>Whether it was stopped before over the same connection, and does not go on where it was, as after a pause of the guest: a driver has
    /// begun anew, of which not every front-end tells by <see cref="VhostUserDevice.Reset"/>.</summary>
    public bool HasNewDriver { get; internal init; }

    /// <summary>Whether <see cref="IRingHandler.Drain"/> may abandon requests: the front-end keeps track of them.</summary>
    public bool MayLeave { get; internal set; }

    /// <summary>Whether the front-end keeps a log of what is written into the guest's memory: the guest is being migrated.</summary>
    public bool IsLogged => _queue.Log is not null;

    /// <summary>Whether the ring stands still because it, or the device, has failed.</summary>
    public bool HasFailed { get; private set; }

    /// <summary>Whether others want their turn: nothing more can be taken in this <see cref="IRingHandler.Process"/>, and another one follows.</summary>
    public bool IsTurnOver => _wasCut;

    internal VirtQueue Queue => _queue;

    /// <summary>Whether only requests that were left in the in-flight log are taken: the ring is disabled.</summary>
    internal bool TakesLeftOnly { get; init; }

    internal EventFd? Kick { get; set; }

    internal EventFd? Call { get; set; }

    internal EventFd? Error { get; set; }

    /// <summary>Calls and errors go by messages where there is no descriptor for them.</summary>
    internal bool IsInband { get; init; }

    /// <summary>Takes the next request: with an in-flight log first what a predecessor has left, oldest first. Its buffers stay mapped until
    /// it is completed; the chain itself is valid until the next is taken.</summary>
    /// <returns>False if there is none, the ring has failed, or others want their turn; <see cref="IRingHandler.Process"/> comes again for what is
    /// left.</returns>
    /// <exception cref="ObjectDisposedException">The ring has stopped.</exception>
    /// <exception cref="InvalidOperationException">Another thread than the ring's calls.</exception>
    public bool TryTake(out DescriptorChain chain)
    {
        Check();
        chain = default;
        if (HasFailed || (TakesLeftOnly && _queue.Left == 0))
            return false;
        if (_turnLeft == 0)
        {
            _wasCut = true;
            return false;
        }
        try
        {
            bool taken = _queue.TryTake(out chain);
            _sawEmpty = !taken;
            if (taken)
                _turnLeft--;
            return taken;
        }
        catch (VirtqueueException e)
        {
            Fail(e.Message);
            return false;
        }
    }

    /// <summary>Whether the latest request that was taken, and not put back, was left by a process before this one. A handler that puts it back before a stop leaves
    /// it to the in-flight log; without a log nobody finds it again.</summary>
    public bool IsLatestLeft => _queue.IsLatestLeft;

    /// <summary>Undoes the latest <see cref="TryTake"/>: nothing was there to fill the request with, and it is the next again. Then the one that
    /// was taken before it may be put back, and so on, as long as they were not completed.</summary>
    public void PutBack(ushort head)
    {
        Check();
        _queue.PutBack(head);
        _sawEmpty = false;
    }

    /// <summary>Completes a request: its buffers are the driver's again. In any order, unless the device said that it keeps it. The driver sees
    /// it by the next <see cref="Notify"/> at the latest.</summary>
    /// <param name="head"><see cref="DescriptorChain.Head"/>.</param>
    /// <param name="written">Bytes written to it, from its start.</param>
    public void Complete(ushort head, uint written)
    {
        Check();
        _queue.Put(head, written);
        if (++_unpublished >= CompletionBatch)
            Publish();
    }

    /// <summary>Calls the driver for what was completed, if it wants to be called. Once for a batch is enough.</summary>
    public void Notify()
    {
        Check();
        Publish();
        _queue.Log?.Tell();
        if (_queue.ShouldCall())
            CallDriver();
    }

    /// <summary>Gives the ring up: it stands still until the front-end stops it. What was taken is still to be completed.</summary>
    /// <param name="reason">Why, for the log.</param>
    public void Fail(string reason)
    {
        if (HasFailed)
            return;
        HasFailed = true;
        s_log.Warn("{Ring} stands still: {Reason}", this, reason);
        try
        {
            if (Error is not null)
                Error.Signal();
            else if (IsInband)
                _device.FrontEnd?.Fail(Index);
        }
        catch (IOException e)
        {
            s_log.Warn("{Ring}: its front-end cannot be told: {Reason}", this, e.Message);
        }
    }

    /// <inheritdoc/>
    public override string ToString() => $"{_device.ServedAs}: ring {Index}";

    /// <summary>Calls the driver, whether it wants to be called or not.</summary>
    internal void CallDriver()
    {
        try
        {
            if (Call is not null)
                Call.Signal();
            else if (IsInband)
                _device.FrontEnd?.Call(Index);
        }
        catch (IOException e)
        {
            Fail($"its driver cannot be called: {e.Message}");
        }
    }

    /// <summary>Has the handler work, with kicks suppressed.</summary>
    internal void Process(IRingHandler handler)
    {
        BeginTurn(TurnLimit);
        _queue.SuppressKicks();
        handler.Process(this);
    }

    /// <summary>Has the handler end what it has taken. It may take all that a full ring has.</summary>
    internal void Drain(IRingHandler handler)
    {
        BeginTurn(_queue.Size);
        handler.Drain(this);
    }

    private void BeginTurn(int limit)
    {
        _sawEmpty = _wasCut = false;
        _turnLeft = limit;
    }

    /// <summary>Gets ready for a wait.</summary>
    /// <param name="hasOther">Whether something else than a kick will wake the handler.</param>
    /// <returns>Whether there is something to do, for which no kick may come.</returns>
    internal bool PrepareToWait(bool hasOther)
    {
        Publish();
        if (HasFailed)
            return false;
        if (_wasCut)
            return true;
        // A handler that left requests in the ring waits for something else: kicks would only wake it for nothing.
        if (!_sawEmpty && hasOther)
            return false;
        try
        {
            bool isThere = _queue.EnableKicks();
            return isThere && _sawEmpty;
        }
        catch (VirtqueueException e)
        {
            Fail(e.Message);
            return false;
        }
    }

    internal void Replace(VirtQueue queue) => _queue = queue;

    private void Publish()
    {
        _unpublished = 0;
        _queue.Publish();
    }

    /// <summary>The calling thread works the ring from now on.</summary>
    internal void Begin() => _thread = Environment.CurrentManagedThreadId;

    /// <summary>The ring has stopped for good.</summary>
    internal void End() => _hasEnded = true;

    private void Check()
    {
        if (_hasEnded || (_thread != 0 && _thread != Environment.CurrentManagedThreadId))
            ThrowMisuse();
    }

    private void ThrowMisuse()
    {
        ObjectDisposedException.ThrowIf(_hasEnded, this);
        throw new InvalidOperationException($"{this} is used by another thread than the ring's");
    }
}
