using Vmm.Devices.Spawning;
using Vmm.Sandbox;
using Vmm.Vhost.Native;

namespace Vmm.Cli;

/// <summary><c>vmm spawner</c>, which no user gives: what <c>vmm run</c> starts to do for it what it must not do itself.</summary>
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
            using ProcessDescriptor? parent = ProcessDescriptor.TryOpenParent();
            using var server = new SpawnerServer(UnixSocket.Adopt(ChildProcess.InheritedNumber), parent);
            server.Run();
            return ExitCode.Success;
        }
        catch (ErrnoException e)
        {
            StandardWriter.Error().WriteLine($"vmm: {MachineSandbox.SpawnerVerb}: {e.Message}: vmm run starts it by itself");
            return ExitCode.Failure;
        }
    }
}
