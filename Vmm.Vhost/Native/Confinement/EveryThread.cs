using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text;

namespace Vmm.Vhost.Native.Confinement;

/// <summary>Has every thread of this process do what the kernel lets a thread do for itself alone, such as giving up capabilities. Threads that
/// begin later inherit it from the one that starts them.</summary>
/// <remarks>A NativeAOT process has two threads before it starts one itself: the main thread, and that on which the runtime calls finalizers. A
/// finalizer of ours reaches the latter. That there is no other thread is looked up in /proc; where that is missing, a warning says so.</remarks>
public static class EveryThread
{
    private const int MaxCollections = 10;
    private const int OwnThreads = 2;
    private const int MaxText = 4096;       // what /proc says of a thread is about 1500 bytes long

    private static readonly BoundedLog s_log = new("Vmm.Vhost.Native");

    /// <summary>Calls <paramref name="action"/> on the calling thread and on the runtime's.</summary>
    /// <param name="action">What they do; it must not wait for the other.</param>
    /// <param name="someHaveDone">Whether there may be threads that a <see cref="ConfinedStarter"/> has started: those have done it.</param>
    /// <exception cref="VhostException">There is another thread, or the runtime's does not do it. Some threads may have done it.</exception>
    /// <exception cref="ErrnoException">The action failed.</exception>
    public static void Do(Action action, bool someHaveDone = false)
    {
        // Before: afterwards the calling thread may be unable to look.
        List<string>? others = List(someHaveDone);
        action();
        DoByFinalizer(action);
        Check(others);
        if (others is null)
            s_log.Info("/proc is missing: whether this process has other threads, which would not be confined, is not known");
    }

    /// <summary>Makes sure that there is no thread but the calling one and the runtime's.</summary>
    /// <exception cref="VhostException">There is.</exception>
    public static void CheckThatNoOthersAre() => Check(List(exceptConfined: false));

    // By their number and not by their ids: /proc may be that of another PID namespace, where they have others.
    private static void Check(List<string>? threads)
    {
        if (threads?.Count > OwnThreads)
        {
            throw new VhostException($"cannot confine all of the threads {string.Join(", ", threads)}: leave out what starts more than {OwnThreads} "
                + "(environment variables that begin with DOTNET_), or do not confine this process");
        }
    }

    private static void DoByFinalizer(Action action)
    {
        var outcome = new Outcome();
        for (int i = 0; i < MaxCollections && Volatile.Read(ref outcome.Thread) == 0; i++)
        {
            LeaveBehind(action, outcome);
            GC.Collect(0);
            GC.WaitForPendingFinalizers();
        }
        if (outcome.Thread == 0)
            throw new VhostException("cannot confine the runtime's thread: it calls no finalizers; do not confine this process");
        if (outcome.Error is { } error)
            throw new ErrnoException(error.Message, error.Errno);
    }

    // A method of its own, so that nothing refers to the object once it has returned.
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void LeaveBehind(Action action, Outcome outcome) => _ = new Messenger(action, outcome);

    // The names of those that count; null where /proc is missing. It reads files by few calls: this is a part of every start.
    private static List<string>? List(bool exceptConfined)
    {
        if (Read("/proc/self/status") is not { } own)
            return null;
        var names = new List<string>();
        if (int.Parse(Field(own, "Threads"), CultureInfo.InvariantCulture) <= OwnThreads)
            return names;
        foreach (string thread in Directory.GetDirectories("/proc/self/task"))
        {
            if (Read($"{thread}/status") is not { } status || (exceptConfined && Field(status, "NoNewPrivs") == "1"))
                continue;
            if (Read($"{thread}/stat") is { } stat && !IsKernels(stat))
                names.Add(Field(status, "Name"));
        }
        return names;
    }

    // Null for one that has ended.
    private static string? Read(string path)
    {
        try
        {
            using FileDescriptor file = FileDescriptor.Open(path, OpenMode.ReadOnly);
            Span<byte> text = stackalloc byte[MaxText];
            int length = file.TryRead(text);
            return length > 0 ? Encoding.Latin1.GetString(text[..length]) : null;
        }
        catch (ErrnoException)
        {
            return null;
        }
    }

    private static string Field(string status, string name)
    {
        int start = status.IndexOf($"{name}:\t", StringComparison.Ordinal) + name.Length + 2;
        return status[start..status.IndexOf('\n', start)];
    }

    // Since Linux 6.4 a worker of vhost's, or of KVM's, is a thread of the process that it works for. It runs no code of the process's.
    // Linux include/linux/sched.h, PF_USER_WORKER; proc_pid_stat(5): the flags are the seventh word behind the name, which is in parentheses.
    private static bool IsKernels(string stat) =>
        (uint.Parse(stat[(stat.LastIndexOf(')') + 2)..].Split(' ')[6], CultureInfo.InvariantCulture) & 0x4000) != 0;

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
