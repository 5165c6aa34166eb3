using Vmm.Devices.Spawning;
using Vmm.Sandbox;
using Vmm.Vhost.Native;

namespace Vmm.Cli;

/// <summary><c>vmm spawner</c>, which no user gives: what <c>vmm run</c> and <c>vmm exec</c> start to do for it what it must not do itself.</summary>
internal static class SpawnerCommand
{
    /// <summary>Serves the process that has started this one, until its end.</summary>
    /// <returns>The exit status; see <see cref="ExitCode"/>.</returns>
    public static int Run()
    {
        try
        {
            // What ends all processes of a service or a session comes here, too (systemd.kill(5)): the VMM may need this one until its own end.
            using var signals = new StopSignals();
            // It is no part of the terminal's job. Where the terminal stops such processes that write to it (stty tostop), it writes all the same.
            SignalDisposition.Ignore(SignalNumber.BackgroundWrite);
            using ProcessDescriptor? parent = ProcessDescriptor.TryOpenParent();
            using var server = new SpawnerServer(UnixSocket.Adopt(ChildProcess.InheritedNumber), parent);
            server.Run();
            return ExitCode.Success;
        }
        catch (ErrnoException e)
        {
            StandardWriter.Error().WriteLine($"vmm: {MachineSandbox.SpawnerVerb}: {e.Message}: vmm run and vmm exec start it by themselves");
            return ExitCode.Failure;
        }
    }
}
