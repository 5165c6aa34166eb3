using System.Runtime.CompilerServices;

namespace Vmm.Vhost.Native.Confinement;

/// <summary>Has every thread of this process do what the kernel lets a thread do for itself alone, such as giving up capabilities. Threads that
/// begin later inherit it from the one that starts them.</summary>
/// <remarks>A NativeAOT process has two threads before it starts one itself: the main thread, and that on which the runtime calls finalizers. A
/// finalizer of ours reaches the latter. That there is no other thread is looked up in /proc; where that is missing, a warning says so.</remarks>
public static class EveryThread
{
    private const int MaxCollections = 10;
    private const int OwnThreads = 2;

    private static readonly BoundedLog s_log = new("Vmm.Vhost.Native");

    /// <summary>Calls <paramref name="action"/> on the calling thread and on the runtime's.</summary>
    /// <param name="action">What they do; it must not wait for the other.</param>
    /// <exception cref="VhostException">There is another thread, or the runtime's does not do it. Some threads may have done it.</exception>
    /// <exception cref="ErrnoException">The action failed.</exception>
    public static void Do(Action action)
    {
        // Before: afterwards the calling thread may be unable to look.
        string[] threads = List();
        action();
        DoByFinalizer(action);
        // By their number and not by their ids: /proc may be that of another PID namespace, where they have others.
        if (threads.Length > OwnThreads)
        {
            throw new VhostException($"cannot confine all of the threads {string.Join(", ", threads)}: leave out what starts more than {OwnThreads} "
                + "(environment variables that begin with DOTNET_), or give --sandbox off");
        }
        if (threads.Length == 0)
            s_log.Warn("/proc is missing: whether this process has other threads, which would not be confined, is not known");
    }

    private static void DoByFinalizer(Action action)
    {
        var outcome = new Outcome();
        for (int i = 0; i < MaxCollections && Volatile.Read(ref outcome.Thread) == 0; i++)
        {
            LeaveBehind(action, outcome);
            GC.Collect();
            GC.WaitForPendingFinalizers();
        }
        if (outcome.Thread == 0)
            throw new VhostException("cannot confine the runtime's thread: it calls no finalizers; give --sandbox off");
        if (outcome.Error is { } error)
            throw new ErrnoException(error.Message, error.Errno);
    }

    // A method of its own, so that nothing refers to the object once it has returned.
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void LeaveBehind(Action action, Outcome outcome) => _ = new Messenger(action, outcome);

    // Their names; empty where /proc is missing.
    private static string[] List() =>
        Directory.Exists("/proc/self/task") ? [.. Directory.GetDirectories("/proc/self/task").Select(NameOf)] : [];

    private static string NameOf(string thread)
    {
        try
        {
            return File.ReadAllText($"{thread}/comm").Trim();
        }
        catch (IOException)
        {
            return "which has ended";
        }
    }

    private sealed class Outcome
    {
        public int Thread;
        public ErrnoException? Error;
    }

    private sealed class Messenger(Action action, Outcome outcome)
    {
        ~Messenger()
        {
            if (outcome.Thread != 0)
                return;
            try
            {
                action();
            }
            catch (ErrnoException e)
            {
                outcome.Error = e;
            }
            Volatile.Write(ref outcome.Thread, NativeThread.CurrentId);
        }
    }
}
