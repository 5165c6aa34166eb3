using System.Globalization;
using System.Runtime.CompilerServices;

namespace Vmm.Vhost.Native.Confinement;

/// <summary>Has every thread of this process do what the kernel lets a thread do for itself alone, such as giving up capabilities. Threads that
/// begin later inherit it from the one that starts them.</summary>
/// <remarks>A NativeAOT process has two threads before it starts one itself: the main thread, and that on which the runtime calls finalizers. A
/// finalizer of ours reaches the latter. That there is no other thread is checked, and not assumed.</remarks>
public static class EveryThread
{
    private const int MaxCollections = 10;

    /// <summary>Calls <paramref name="action"/> on the calling thread and on the runtime's.</summary>
    /// <param name="action">What they do; it must not wait for the other.</param>
    /// <exception cref="VhostException">There is another thread, or the runtime's does not do it. Some threads may have done it.</exception>
    /// <exception cref="ErrnoException">The action failed.</exception>
    public static void Do(Action action)
    {
        // Before: afterwards the calling thread may be unable to look.
        (int Id, string Name)[] threads = List();
        action();
        int finalizers = DoByFinalizer(action);
        foreach ((int id, string name) in threads)
        {
            if (id != NativeThread.CurrentId && id != finalizers)
            {
                throw new VhostException($"cannot confine the thread \"{name}\", which began before: leave out what starts it (environment variables "
                    + "that begin with DOTNET_), or give --sandbox off");
            }
        }
    }

    private static int DoByFinalizer(Action action)
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
        return outcome.Error is null ? outcome.Thread : throw new ErrnoException(outcome.Error.Message, outcome.Error.Errno);
    }

    // A method of its own, so that nothing refers to the object once it has returned.
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void LeaveBehind(Action action, Outcome outcome) => _ = new Messenger(action, outcome);

    // Empty where /proc is missing.
    private static (int Id, string Name)[] List() => Directory.Exists("/proc/self/task")
        ? [.. Directory.GetDirectories("/proc/self/task").Select(path => (int.Parse(Path.GetFileName(path), CultureInfo.InvariantCulture), NameOf(path)))]
        : [];

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
