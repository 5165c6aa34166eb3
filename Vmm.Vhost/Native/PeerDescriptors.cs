using System.Diagnostics;
using Tmds.Linux;

namespace Vmm.Vhost.Native;

/// <summary>Closes the descriptors that came from one peer, on threads for which nobody waits: the peer decides how long close(2) takes. A socket
/// with SO_LINGER waits for its other end, and a file of FUSE for the program that serves it.</summary>
/// <remarks>One close at a time is under way for each peer. A thread that is about to close something starts another one first, if none is free, so
/// that a peer holds up its own descriptors only. Where the host refuses a thread, others wait with it until there is one again. Shared memory is closed at once, on the calling thread: it waits for nobody.
/// <para>The process ends all the same while a close waits for a socket. One that waits for FUSE ends with the program that serves the file.</para></remarks>
internal sealed class PeerDescriptors
{
    /// <summary>So many may wait to be closed before nothing more is received from the peer.</summary>
    public const int MaxWaiting = 128;

    private const int MaxIdle = 2;          // of the threads: one closes, and one is there if that takes its time

    private static readonly object s_lock = new();
    private static readonly Queue<PeerDescriptors> s_ready = new();     // those with something to close, and no close under way
    private static int s_starting;      // threads that have not come to look for work yet
    private static int s_idle;

    private readonly Queue<int> _numbers = new();
    private bool _isBusy;       // in s_ready, or a close is under way
    private int _waiting;       // with the one that is being closed

    /// <summary>For sockets of which nobody has said which peer they belong to.</summary>
    public static PeerDescriptors Others { get; } = new();

    /// <summary>How many are still to be closed.</summary>
    public int Waiting
    {
        get
        {
            lock (s_lock)
                return _waiting;
        }
    }

    /// <summary>Whether more may be received.</summary>
    public bool HasRoom => Waiting < MaxWaiting;

    // Whether there is a thread that is not about to close something.
    private static bool HasSpare => s_idle + s_starting > 0;

    /// <summary>Starts a thread, if none waits for work: for a process in which not every thread that receives something may start one.</summary>
    /// <exception cref="ErrnoException">The host allows no more threads.</exception>
    public static void Prepare()
    {
        lock (s_lock)
        {
            if (HasSpare)
                return;
            s_starting++;
        }
        StartThread();
    }

    /// <summary>Closes descriptor <paramref name="number"/>, without waiting for that.</summary>
    public void Close(int number)
    {
        if (FileKind.IsSharedMemory(number))
        {
            _ = LibC.close(number);
            return;
        }
        bool isWanted;
        lock (s_lock)
        {
            _numbers.Enqueue(number);
            _waiting++;
            if (!_isBusy)
            {
                _isBusy = true;
                s_ready.Enqueue(this);
                Monitor.PulseAll(s_lock);
            }
            // Again where the host has refused one: those that there are may wait for other peers.
            isWanted = !HasSpare;
            if (isWanted)
                s_starting++;
        }
        if (isWanted)
            TryStartThread();
    }

    /// <summary>Waits until more may be received.</summary>
    /// <returns>False if <paramref name="timeout"/> passed before.</returns>
    public bool WaitForRoom(TimeSpan timeout)
    {
        long start = Stopwatch.GetTimestamp();
        lock (s_lock)
        {
            while (_waiting >= MaxWaiting)
            {
                TimeSpan left = timeout - Stopwatch.GetElapsedTime(start);
                if (left <= TimeSpan.Zero)
                    return false;
                Monitor.Wait(s_lock, left);
            }
        }
        return true;
    }

    // It is counted already.
    private static void StartThread()
    {
        try
        {
            NativeThread.Start(new Thread(Run, maxStackSize: 128 * 1024) { Name = "closer", IsBackground = true });
        }
        catch
        {
            lock (s_lock)
                s_starting--;
            throw;
        }
    }

    // Where the host refuses, the threads that there are go on, and the next descriptor that is to be closed has it asked again.
    private static void TryStartThread()
    {
        try
        {
            StartThread();
        }
        catch (ErrnoException)
        {
            // The host allows no more threads.
        }
    }

    private static void Run()
    {
        lock (s_lock)
            s_starting--;
        while (Next(out bool isLast) is { } peer)
        {
            if (isLast)
                TryStartThread();
            peer.CloseNext();
        }
    }

    // The next peer; null if there are enough threads that wait for one. If the calling thread is the last that could wait, another one is to be started.
    private static PeerDescriptors? Next(out bool isLast)
    {
        isLast = false;
        lock (s_lock)
        {
            while (s_ready.Count == 0)
            {
                if (s_idle == MaxIdle)
                    return null;
                s_idle++;
                Monitor.Wait(s_lock);
                s_idle--;
            }
            isLast = !HasSpare;
            if (isLast)
                s_starting++;
            return s_ready.Dequeue();
        }
    }

    private void CloseNext()
    {
        int number;
        lock (s_lock)
            number = _numbers.Dequeue();
        _ = LibC.close(number);
        lock (s_lock)
        {
            _waiting--;
            if (_numbers.Count > 0)
                s_ready.Enqueue(this);
            else
                _isBusy = false;
            Monitor.PulseAll(s_lock);
        }
    }
}

/// <summary>A descriptor that a peer has sent.</summary>
internal sealed class PeerDescriptor(int fd, PeerDescriptors peer) : FileDescriptor(fd)
{
    /// <inheritdoc/>
    protected override bool ReleaseHandle()
    {
        peer.Close((int)handle);
        return true;
    }
}
