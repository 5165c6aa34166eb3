using System.Runtime.CompilerServices;
using System.Runtime.ExceptionServices;
using Vmm.Devices.Spawning;
using Vmm.Serial;
using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.Confinement;

namespace Vmm.Sandbox;

/// <summary>The confinement of <c>vmm run</c> and <c>vmm exec</c>: before the process reads the kernel or runs the guest, all of its threads give up what they need no more. The
/// machine's own threads begin in it (docs/adr/0014-threads-begin-in-the-sandbox.md).</summary>
internal sealed class MachineSandbox : IDisposable
{
    /// <summary>The verb by which this program is a <see cref="SpawnerServer"/>.</summary>
    public const string SpawnerVerb = "spawner";

    private const int WorkStackSize = 1 << 20;

    private static readonly BoundedLog s_log = new("Vmm.Sandbox");

    private readonly JailOptions _jail;
    private readonly int _landlock = Landlock.Version;
    private readonly FileDescriptor? _rules;
    private readonly ConfinedStarter _starter;
    private readonly Lazy<RemoteSpawner> _spawner = new(() => new RemoteSpawner("/proc/self/exe", [SpawnerVerb]));
    private readonly List<SystemCallRule> _others = [];
    private SeccompFilter? _vcpuFilter;

    private MachineSandbox(JailOptions jail)
    {
        _jail = jail;
        _rules = Landlock.MakeRules([]);
        if (_rules is null)
            s_log.Info("this kernel has no Landlock: files are kept away by seccomp alone");
        _starter = new ConfinedStarter(GiveUpPrivileges);
    }

    /// <summary>Begins: from now on threads that are started are confined, but for their system calls. The calling thread is not yet.</summary>
    /// <param name="jail">Who and where the process is then.</param>
    /// <returns>Null where that is impossible: not without the native binary, as the JIT opens files and makes code as it goes.</returns>
    /// <exception cref="VmmException">The kernel refused, or there is a thread that cannot be reached; the message says what to do.</exception>
    public static MachineSandbox? Begin(JailOptions jail)
    {
        bool isJailed = jail != new JailOptions();
        if (isJailed && (!Environment.IsPrivilegedProcess || RuntimeFeature.IsDynamicCodeSupported))
            throw new VmmException($"{(jail.Root is null ? "--user" : "--chroot")}: needs root, and the native binary: leave it out, or start as root");
        if (RuntimeFeature.IsDynamicCodeSupported)
        {
            s_log.Info("not confined: only the native binary can be");
            return null;
        }
        MachineSandbox? sandbox = null;
        Explain(jail, () => sandbox = new MachineSandbox(jail));
        return sandbox;
    }

    /// <summary>What does for the machine what it must not do itself. Its process starts with the first look at this, which comes before <see cref="Close"/>; a
    /// machine that does not need it has none.</summary>
    /// <exception cref="ErrnoException">It cannot be started.</exception>
    public ISpawner Spawner => _spawner.Value;

    /// <summary>Does something on a thread that is confined, but for its system calls: what the runtime starts meanwhile is so, too.</summary>
    public void DoConfined(Action action) => _starter.Do(action);

    /// <summary>Lets the process, but not the threads of vCPUs, make <paramref name="calls"/> beside those of a machine; before <see cref="Close"/>.</summary>
    public void Allow(IReadOnlyList<SystemCallRule> calls) => _others.AddRange(calls);

    /// <summary>Does work that takes more of a stack, as <see cref="DoConfined"/> does, and waits for it.</summary>
    /// <remarks>Throws what <paramref name="work"/> throws.</remarks>
    /// <exception cref="ErrnoException">A thread cannot be started.</exception>
    public static void WorkConfined(Action work)
    {
        ExceptionDispatchInfo? error = null;
        var thread = new Thread(Run, WorkStackSize) { Name = "worker", IsBackground = true };
        NativeThread.Start(thread);
        thread.Join();
        error?.Throw();

        void Run()
        {
            try
            {
                work();
            }
            catch (Exception e)
            {
                error = ExceptionDispatchInfo.Capture(e);
            }
        }
    }

    /// <summary>Confines the whole process, for good. All that has to be opened is open.</summary>
    /// <param name="serial">What the serial port is connected to.</param>
    /// <param name="driverCalls">What devices do on vCPU threads.</param>
    /// <param name="eventCalls">What they do elsewhere besides.</param>
    /// <exception cref="VmmException">The kernel refused, or there is a thread that cannot be reached; the message says what to do.</exception>
    public void Close(SerialKind serial, IEnumerable<SystemCallRule> driverCalls, IEnumerable<SystemCallRule> eventCalls)
    {
        SystemCallRule[] ofDrivers = [.. driverCalls.Distinct()];
        _vcpuFilter = new SeccompFilter()
            .Allow(MachineSystemCalls.Running)
            .Allow(MachineSystemCalls.Vcpu)
            .Allow(ofDrivers)
            .Allow(ProcessSystemCalls.Runtime)
            .HideClone3()
            .Kill(ProcessSystemCalls.Deadly);
        SeccompFilter filter = new SeccompFilter()
            .Allow(MachineSystemCalls.Running)
            .Allow(MachineSystemCalls.Vcpu)
            .Allow(ofDrivers)
            .Allow(ProcessSystemCalls.Common)
            .Allow(MachineSystemCalls.Machine)
            .Allow(serial == SerialKind.Tty ? [.. MachineSystemCalls.OwnTerminal, .. MachineSystemCalls.Job] : [])
            .Allow(eventCalls.Concat(_others).Distinct())
            .HideClone3()
            .Kill(ProcessSystemCalls.Deadly);
        if (_spawner.IsValueCreated)
            _spawner.Value.Close();
        int main = NativeThread.CurrentId;
        Explain(_jail, () =>
        {
            EveryThread.Do(
                () =>
                {
                    // The threads of a process have one root, and to change it takes a capability that is about to go.
                    if (_jail.Root is { } root && NativeThread.CurrentId == main)
                        ThreadPrivileges.ChangeRoot(root);
                    GiveUpPrivileges();
                },
                someHaveDone: true);
            _starter.Dispose();     // this thread is as confined as that one
            _rules?.Dispose();
            filter.Install(allThreads: true);
        });
        s_log.Debug("confined by seccomp, and by Landlock {Version}", _landlock);
    }

    /// <summary>Leaves the calling thread, a vCPU's, only what runs the guest and what devices do when their registers are written; after
    /// <see cref="Close"/>.</summary>
    /// <exception cref="ErrnoException">The kernel refused.</exception>
    public void ConfineVcpu() => _vcpuFilter!.Install(allThreads: false);

    /// <summary>Ends what it has started, after the machine. What is confined stays so.</summary>
    public void Dispose()
    {
        _starter.Dispose();
        if (_spawner.IsValueCreated)
            _spawner.Value.Dispose();
        _rules?.Dispose();
    }

    private void GiveUpPrivileges()
    {
        if (_jail.Identity is (uint user, uint group))
            ThreadPrivileges.Become(user, group);
        ThreadPrivileges.GiveUp(_rules);
    }

    /// <summary>Does something that confines this process; an error of the kernel's is told with what to do about it.</summary>
    /// <exception cref="VmmException">The kernel refused, or there is a thread that cannot be reached.</exception>
    internal static void Explain(JailOptions jail, Action confine)
    {
        try
        {
            confine();
        }
        catch (ErrnoException e)
        {
            string remedy = jail == new JailOptions()
                ? "vmm check says what this kernel has, and --sandbox off does without"
                : "vmm check says what this kernel has; --user takes CAP_SETUID and CAP_SETGID, --chroot CAP_SYS_CHROOT: give these to it, or leave the option out";
            throw new VmmException($"cannot confine this process: {e.Message}: {remedy}", e);
        }
        catch (VhostException e)
        {
            throw new VmmException($"{e.Message} (--sandbox off)", e);
        }
    }
}
