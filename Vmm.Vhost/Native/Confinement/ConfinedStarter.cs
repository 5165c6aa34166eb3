using System.Runtime.ExceptionServices;

namespace Vmm.Vhost.Native.Confinement;

/// <summary>A thread that is confined already while its process is not, and starts other threads: they inherit that. So a process can have threads
/// before it is ready to confine its main thread (<see cref="EveryThread"/>).</summary>
/// <remarks>As long as there is one, <see cref="NativeThread.Start"/> goes by it. Threads that the runtime starts by itself are to be started by
/// <see cref="Do"/>.</remarks>
public sealed class ConfinedStarter : IDisposable
{
    private const int StackSize = 64 << 10;

    private readonly object _lock = new();
    private readonly Thread _thread;
    private Action? _work;
    private ExceptionDispatchInfo? _error;
    private bool _isStopping;

    /// <summary>Starts the thread.</summary>
    /// <param name="confine">What it does first.</param>
    /// <exception cref="VhostException">This process has other threads than the runtime's already.</exception>
    /// <exception cref="ErrnoException">It cannot be started, or not be confined.</exception>
    public ConfinedStarter(Action confine)
    {
        EveryThread.CheckThatNoOthersAre();
        _thread = new Thread(Run, StackSize) { Name = "starter", IsBackground = true };
        NativeThread.Start(_thread);
        try
        {
            Do(confine);
        }
        catch
        {
            Dispose();
            throw;
        }
        NativeThread.Starter = Do;
    }

    /// <summary>Has the thread do something, and waits for it. The calling thread does it if that thread ends: it is confined itself by then.</summary>
    /// <remarks>Throws what <paramref name="work"/> throws.</remarks>
    public void Do(Action work)
    {
        lock (_lock)
        {
            while (_work is not null)
                Monitor.Wait(_lock);
            if (!_isStopping)
            {
                _work = work;
                Monitor.PulseAll(_lock);
                while (ReferenceEquals(_work, work))
                    Monitor.Wait(_lock);
                ExceptionDispatchInfo? error = _error;
                _error = null;
                error?.Throw();
                return;
            }
        }
        work();
    }

    /// <summary>Ends the thread: from now on each thread starts others itself.</summary>
    public void Dispose()
    {
        if (ReferenceEquals(NativeThread.Starter?.Target, this))
            NativeThread.Starter = null;
        lock (_lock)
        {
            _isStopping = true;
            Monitor.PulseAll(_lock);
        }
        _thread.Join();
    }

    private void Run()
    {
        lock (_lock)
        {
            while (true)
            {
                while (_work is null)
                {
                    if (_isStopping)
                        return;
                    Monitor.Wait(_lock);
                }
                try
                {
                    _work();
                }
                catch (Exception e)
                {
                    _error = ExceptionDispatchInfo.Capture(e);
                }
                _work = null;
                Monitor.PulseAll(_lock);
            }
        }
    }
}
