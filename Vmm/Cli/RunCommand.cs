using Vmm.Boot;
using Vmm.Cli.Checks;
using Vmm.Machine;
using Vmm.Sandbox;
using Vmm.Vhost.Native;

namespace Vmm.Cli;

/// <summary><c>vmm run</c>.</summary>
internal static class RunCommand
{
    // Nothing was heard of the guest: its kernel writes to the serial port only where its command line says so.
    private const string EarlyAdvice = "add console=ttyS0 earlyprintk=ttyS0 to --cmdline to see why, and check --kernel and --initramfs";

    /// <summary>Runs the guest that <paramref name="options"/> describe.</summary>
    /// <returns>The exit status; see <see cref="ExitCode"/>.</returns>
    /// <exception cref="UsageException">An option's value is wrong.</exception>
    /// <exception cref="VmmException">This host cannot run the guest as asked.</exception>
    public static int Run(RunOptions options)
    {
        Logging.Start(RunOptionsReader.ReadLogLevel(options));
        MachineConfig config = RunOptionsReader.Read(options);
        JailOptions? jail = SandboxOption.Parse(options);
        RequireVirtualisation(options.Force, config.Kernel.KernelPath);
        return Run(config, jail);
    }

    /// <summary>Refuses a Linux kernel where it does not run.</summary>
    /// <param name="isForced">Whether the user wants it all the same.</param>
    /// <param name="kernel">The kernel's file.</param>
    /// <exception cref="VmmException">It does not run here.</exception>
    public static void RequireVirtualisation(bool isForced, string kernel)
    {
        // Such a guest would hang without a word: a paravirtual KVM interprets its kernel, and does not know all of its instructions.
        if (!isForced && !ProcessorCheck.HasVirtualisation(HostView.Real) && KernelLoader.IsLinux(kernel))
        {
            const string advice = "/proc/cpuinfo has neither vmx nor svm; vmm check says what to do";
            throw new VmmException(File.Exists("/dev/kvm") ? $"this host's KVM does not run Linux guests: {advice}, and --force tries all the same"
                : $"there is no /dev/kvm, and {advice}");
        }
    }

    /// <summary>Builds the machine and runs it until it ends.</summary>
    private static int Run(MachineConfig config, JailOptions? jail)
    {
        VirtualMachine? running = null;
        using var process = new MachineProcess(jail, hasDevices: config.Devices.Count > 0);
        StopSignals signals = process.Signals;
        signals.Handle(SignalNumber.PowerFailure, () => Volatile.Read(ref running)?.PressPowerButton());
        try
        {
            using var machine = new VirtualMachine(config, process.Sandbox, signals.Token);
            signals.Attach(machine.Signal);
            signals.Handle(ProcessStop.Number, machine.Suspend);
            signals.Handle(SignalNumber.Continue, machine.Resume);
            Volatile.Write(ref running, machine);
            MachineEnd end = machine.Run();
            Volatile.Write(ref running, null);
            return end.Kind switch
            {
                MachineEndKind.Panic => ExitCode.GuestPanic,
                MachineEndKind.ResetLoop => Report(
                    $"reset {RestartWatch.MaxResets} times within 10 s of its time before it said or did anything"),
                MachineEndKind.EarlyFault => Report("reset by a triple fault before it said or did anything"),
                MachineEndKind.EarlyHalt => Report("halted with interrupts off before it said or did anything"),
                MachineEndKind.Signal => ExitCode.Signal(end.Signal),
                _ => ExitCode.Success,
            };
        }
        catch (OperationCanceledException) when (signals.First != 0)
        {
            return ExitCode.Signal(signals.First);
        }
    }

    private static int Report(string whatTheGuestDid)
    {
        StandardWriter.TryTell($"vmm: the guest {whatTheGuestDid}: {EarlyAdvice}\n");
        return ExitCode.GuestPanic;
    }
}
