using Vmm.Machine;

namespace Vmm.Cli;

/// <summary><c>vmm run</c>.</summary>
internal static class RunCommand
{
    /// <summary>Runs the guest that <paramref name="options"/> describe.</summary>
    /// <returns>The exit status; see <see cref="ExitCode"/>.</returns>
    /// <exception cref="UsageException">An option's value is wrong.</exception>
    /// <exception cref="VmmException">This host cannot run the guest as asked.</exception>
    public static int Run(RunOptions options)
    {
        Logging.Start(RunOptionsReader.ReadLogLevel(options));
        MachineConfig config = RunOptionsReader.Read(options);
        if (config.Memory.HugePageSize != 0)
            HostHugePages.Require(config.Memory.HugePageSize);
        return Run(config);
    }

    /// <summary>Builds the machine and runs it until it ends.</summary>
    private static int Run(MachineConfig config)
    {
        using var signals = new StopSignals();
        try
        {
            using var machine = new VirtualMachine(config, signals.Token);
            signals.Attach(number => machine.Stop(new MachineEnd(MachineEndKind.Signal, number)));
            MachineEnd end = machine.Run();
            return end.Kind switch
            {
                MachineEndKind.Panic => ExitCode.GuestPanic,
                MachineEndKind.Signal => ExitCode.Signal(end.Signal),
                _ => ExitCode.Success,
            };
        }
        catch (OperationCanceledException) when (signals.First != 0)
        {
            return ExitCode.Signal(signals.First);
        }
    }
}
