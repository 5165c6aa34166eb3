using System.Collections.Concurrent;
using System.Runtime.ExceptionServices;
using Vmm.Vhost.Native;

namespace Vmm.Machine;

/// <summary>Does the same with many things at the same time, each on a thread of its own: all together take as long as the slowest.</summary>
internal static class AtOnce
{
    private const int StackSize = 256 << 10;

    /// <summary>Calls <paramref name="action"/> for each of <paramref name="items"/>, and waits until all have returned. Where the host allows no more threads,
    /// the rest is done one after another.</summary>
    /// <remarks>Throws the first exception of an action, after all have ended.</remarks>
    public static void Do<T>(IReadOnlyList<T> items, Action<T> action)
    {
        var errors = new ConcurrentQueue<Exception>();
        var threads = new List<Thread>();
        for (int i = 1; i < items.Count; i++)
        {
            T item = items[i];
            var thread = new Thread(() => Try(item), StackSize) { Name = $"{typeof(T).Name} {i}", IsBackground = true };
            try
            {
                NativeThread.Start(thread);
                threads.Add(thread);
            }
            catch (ErrnoException)
            {
                Try(item);
            }
        }
        if (items.Count > 0)
            Try(items[0]);
        foreach (Thread thread in threads)
            thread.Join();
        if (errors.TryDequeue(out Exception? error))
            ExceptionDispatchInfo.Throw(error);

        void Try(T item)
        {
            try
            {
                action(item);
            }
            catch (Exception e)
            {
                errors.Enqueue(e);
            }
        }
    }
}
