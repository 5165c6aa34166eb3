using Vmm.Devices.Backends;
using Vmm.Guest;
using Vmm.Machine;
using Vmm.Sandbox;
using Vmm.Vhost.Native;
using static Vmm.Vhost.Native.SignalNumber;

namespace Vmm.Cli.Exec;

/// <summary><c>vmm exec --attach</c>: one more command in a guest that runs.</summary>
internal static class AttachCommand
{
    /// <summary>Runs the command of <paramref name="session"/> in the guest called <paramref name="name"/>. Once it is connected, this process is confined as a
    /// back-end is: the guest is at the other end.</summary>
    /// <param name="name">The guest's name.</param>
    /// <param name="session">The command.</param>
    /// <param name="jail">Null if this process is not to be confined.</param>
    /// <returns>How the command ended, and, if this process left it because of a signal, that.</returns>
    /// <exception cref="VmmException">There is no such guest, or the kernel does not confine this process.</exception>
    public static (MachineEnd? Left, CommandEnd Command) Run(string name, AgentSession session, JailOptions? jail)
    {
        if (GuestDirectory.Connect(name, session.Deadline) is not UnixSocket socket)
            return (null, new CommandEnd(CommandEndKind.TimedOut));
        var confinement = new Confinement { Calls = MachineSystemCalls.OfCommand(session.HasTerminal), SendsDescriptors = false };
        bool isConfined = false;
        if (jail is not null)
            MachineSandbox.Explain(jail, () => isConfined = confinement.GiveUpPrivileges());
        using var signals = new StopSignals();      // on a thread that is confined from its beginning
        int signal = 0;
        var terminations = new Terminations();
        signals.Attach(Forward);
        signals.Handle(User1, () => Forward(User1));
        signals.Handle(WindowChange, session.WindowChanged);
        signals.Handle(Continue, session.Continue);
        signals.Handle(ProcessStop.Number, () =>
        {
            session.Suspend();
            ProcessStop.Now();      // returns when the process goes on
            session.Continue();
        });
        if (isConfined)
            MachineSandbox.Explain(jail!, confinement.GiveUpSystemCalls);
        CommandEnd end = session.Run(socket);
        return (end.Kind == CommandEndKind.Lost && signal != 0 ? new MachineEnd(MachineEndKind.Signal, signal) : null, end);

        // The command gets it; if there is none, or it was told to end already, it is left, and its agent kills it.
        void Forward(int number)
        {
            if (!terminations.IsSecond(number) && session.Signal(number))
                return;
            signal = number;
            session.Leave();
        }
    }
}
