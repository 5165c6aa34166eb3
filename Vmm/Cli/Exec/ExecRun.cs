using Vmm.Guest;
using Vmm.Machine;
using Vmm.Vhost.Native;
using static Vmm.Vhost.Native.SignalNumber;

namespace Vmm.Cli.Exec;

/// <summary>A guest and the command in it, until both have ended: whichever ends first ends the other.</summary>
/// <param name="config">The guest.</param>
/// <param name="process">This process.</param>
/// <param name="session">The command.</param>
/// <param name="directory">The guest's directory, with the socket of its vsock device.</param>
/// <param name="terminal">The terminal by which the guest's agent speaks without vsock; null if it connects by vsock.</param>
internal sealed class ExecRun(MachineConfig config, MachineProcess process, AgentSession session, GuestDirectory directory, AgentTerminal? terminal)
{
    // A guest that powers off resets its devices first: the connection with its agent ends before the machine does.
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(5);

    private readonly object _machine = new();
    private readonly Terminations _terminations = new();
    private bool _machineHasEnded;
    private volatile int _leavingSignal;
    private CommandEnd? _end;
    private Exception? _failure;

    /// <summary>The signals that go to the command.</summary>
    internal static IReadOnlyList<int> Forwarded { get; } = [Hangup, Interrupt, Quit, User1, User2, Terminate];

    /// <summary>When the guest was started, a timestamp of <see cref="System.Diagnostics.Stopwatch"/>; 0 if it was not.</summary>
    public long GuestStarted { get; private set; }

    /// <summary>Runs the guest.</summary>
    /// <returns>How the machine ended, null if it was never made because the time was over first; and how the command did.</returns>
    /// <exception cref="VmmException">The machine cannot be made, or the agent does not keep to the protocol.</exception>
    public (MachineEnd? Machine, CommandEnd Command) Run()
    {
        StopSignals signals = process.Signals;
        Thread? agent = null;
        FileDescriptor? connection = null;
        try
        {
            MachineEnd end;
            using var opening = CancellationTokenSource.CreateLinkedTokenSource(signals.Token);
            if (session.Deadline is long deadline)
                opening.CancelAfter((int)Math.Clamp(deadline - Environment.TickCount64, 0, int.MaxValue));
            using (var machine = new VirtualMachine(config, process.Sandbox, opening.Token))
            {
                signals.Attach(number => Forward(machine, number));
                signals.Handle(User1, () => Forward(machine, User1));
                signals.Handle(WindowChange, session.WindowChanged);
                signals.Handle(ProcessStop.Number, () => Suspend(machine));
                signals.Handle(Continue, () =>
                {
                    machine.Resume();
                    session.Continue();
                });
                connection = terminal is null ? AcceptAgent() : terminal.Open(opening.Token);    // before the guest boots
                var thread = new Thread(() => RunSession(machine, connection)) { IsBackground = true, Name = "agent" };
                NativeThread.Start(thread);
                agent = thread;
                try
                {
                    end = machine.Run();
                }
                finally
                {
                    GuestStarted = machine.Started;
                    lock (_machine)
                    {
                        _machineHasEnded = true;
                        Monitor.Pulse(_machine);
                    }
                    session.GuestHasEnded();
                }
            }
            // With its devices gone, what the guest has sent last has been passed on, and the connection with its agent has ended.
            agent.Join();
            if (_failure is not null)
                throw new VmmException(_failure.Message, _failure);
            // A guest whose command has ended powers itself off, perhaps before the signal comes. A panic is told all the same.
            bool isLeft = _end is { Kind: CommandEndKind.Lost } && _leavingSignal != 0 && end is { Kind: MachineEndKind.PowerOff or MachineEndKind.Quit };
            return (isLeft ? new MachineEnd(MachineEndKind.Signal, _leavingSignal) : end, _end!);
        }
        catch (OperationCanceledException) when (signals.First != 0)
        {
            return (new MachineEnd(MachineEndKind.Signal, signals.First), new CommandEnd(CommandEndKind.Lost));
        }
        catch (OperationCanceledException) when (session.Deadline is not null)
        {
            return (null, new CommandEnd(CommandEndKind.TimedOut));
        }
        finally
        {
            agent?.Join();
            connection?.Dispose();
        }
    }

    private UnixSocket? AcceptAgent() => directory.AcceptAgent(process.Sandbox?.Spawner);

    private void RunSession(VirtualMachine machine, FileDescriptor? connection)
    {
        try
        {
            _end = session.Run(connection, terminal is null ? AcceptAgent : null);
        }
        catch (Exception e)
        {
            _failure = e;
        }
        if (_end is { Kind: CommandEndKind.Lost })
        {
            lock (_machine)
            {
                if (!_machineHasEnded)
                    Monitor.Wait(_machine, s_patience);
            }
        }
        machine.Stop(_end is { Kind: CommandEndKind.Unresponsive } ? new MachineEnd(MachineEndKind.Signal, _end.Value) : new MachineEnd(MachineEndKind.Quit));
    }

    // The command gets it; if there is none, or it was told to end already, the machine ends.
    private void Forward(VirtualMachine machine, int number)
    {
        if (!_terminations.IsSecond(number) && Forwarded.Contains(number) && session.Signal(number))
            return;
        _leavingSignal = number;
        machine.Stop(new MachineEnd(MachineEndKind.Signal, number));
        session.Leave();
    }

    private void Suspend(VirtualMachine machine)
    {
        session.Suspend();
        machine.Suspend();      // returns when the process goes on
        session.Continue();
    }
}
