using Vmm.Guest;
using Vmm.Vhost.Native;

namespace Vmm.Cli.Exec;

/// <summary><c>vmm exec --attach</c>: one more command in a guest that runs.</summary>
internal static class AttachCommand
{
    private const int User1 = 10, WindowChange = 28, Continue = 18;     // signal(7)

    /// <summary>Runs the command of <paramref name="session"/> in the guest called <paramref name="name"/>.</summary>
    /// <exception cref="VmmException">There is no such guest.</exception>
    public static CommandEnd Run(string name, AgentSession session)
    {
        using var signals = new StopSignals();
        int signal = 0;
        UnixSocket socket = GuestDirectory.Connect(name);
        signals.Attach(Forward);
        signals.Handle(User1, () => Forward(User1));
        signals.Handle(WindowChange, session.Resize);
        signals.Handle(Continue, session.Continue);
        signals.Handle(ProcessStop.Number, () =>
        {
            session.RestoreTerminal();
            ProcessStop.Now();
        });
        CommandEnd end = session.Run(socket);
        return end.Kind == CommandEndKind.Lost && signal != 0 ? new CommandEnd(CommandEndKind.Unresponsive, signal) : end;

        void Forward(int number)
        {
            if (session.Signal(number))
                return;
            signal = number;
            session.Leave();
        }
    }
}
