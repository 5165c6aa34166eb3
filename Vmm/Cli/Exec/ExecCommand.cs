using NLog;
using Vmm.Guest;
using Vmm.Machine;
using Vmm.Sandbox;
using Vmm.Serial;
using Vmm.Vhost.Native;

namespace Vmm.Cli.Exec;

/// <summary><c>vmm exec</c>: the machine of <c>vmm run</c>, with a kernel that is found, the agent as its init, and a command.</summary>
internal static class ExecCommand
{
    /// <summary>Runs the command that <paramref name="options"/> describe, in a guest of its own.</summary>
    /// <returns>The exit status; see <see cref="ExitCode"/>.</returns>
    /// <exception cref="UsageException">An option's value is wrong.</exception>
    /// <exception cref="VmmException">There is no kernel, or this host cannot run the guest as asked.</exception>
    public static int Run(ExecOptions options, TextWriter output)
    {
        ExecConflicts.Check(options);
        var origin = new DefaultsOrigin(options);
        try
        {
            return Run(options, output, origin);
        }
        catch (UsageException e) when (origin.Explain(e.Message, options) is string message)
        {
            throw new UsageException(message, e);
        }
        catch (VmmException e) when (origin.Explain(e.Message, options) is string message)
        {
            throw new VmmException(message, e) { Details = e.Details };
        }
    }

    private static int Run(ExecOptions options, TextWriter output, DefaultsOrigin origin)
    {
        if (options.Parent is string parent)
            ParentProcess.EndWith((int)NumberValue.Parse(new OptionValue($"--{MatrixRun.ParentOption}", null, parent), 1, int.MaxValue));
        // What the VMM would warn of, such as a panic, is told here in other words.
        LogLevel level = LogLevelOption.Parse(options.LogLevel ?? (options.Verbose ? "info" : "error"));
        Logging.Start(level);
        ExecPhases? phases = level <= LogLevel.Info ? new ExecPhases() : null;
        DefaultsFile? file = FindDefaults(options);
        origin.File = file;
        if (options.Matrix)
            return MatrixCommand.Run(options, file, output);
        if (options.Only is string only && file is null)
            throw new UsageException($"--only: no vmm.toml is read that could have a [[matrix]] called '{only}'");
        IReadOnlyList<string> notes = file?.ApplyTo(options, options.Only is null ? null : file.Variant(options.Only)) ?? [];

        FileDescriptor? input = StandardStream.Input, error = StandardStream.Error, written = StandardStream.Output;
        GuestCommand command = ExecOptionsReader.ReadCommand(options, (IsTerminal(input), IsTerminal(written), IsTerminal(error)), IsSameFile(written, error));
        TimeSpan? timeout = ExecOptionsReader.ReadTimeout(options);
        ExecOptionsReader.Check(options);
        new ExecReport(command, options.Quiet, timeout, null).TellOfDefaults(notes);
        JailOptions? jail = SandboxOption.Parse(new RunOptions { Sandbox = options.Sandbox });
        var streams = new HostStreams(input, written, error, command.HasTerminal, closesOutput: written is not null);
        // Of a kernel that says all on its console there is nothing more to ask.
        using var session = new AgentSession(command, streams, timeout) { AsksForKernelLog = options is { Attach: null, Quiet: false, Dmesg: null, Verbose: false } };
        if (options.Attach is not string name)
            return RunInGuest(options, session, jail, phases, output);
        (MachineEnd? left, CommandEnd end) = AttachCommand.Run(name, session, jail);
        return new ExecReport(command, options.Quiet, timeout, null) { HasStarted = session.HasStarted }.Tell(left, end);
    }

    private static int RunInGuest(ExecOptions options, AgentSession session, JailOptions? jail, ExecPhases? phases, TextWriter output)
    {
        GuestKernel kernel = KernelSearch.Find(options.Kernel, options.Modules, options.AreModulesFound);
        var available = new KernelModules(kernel);
        AgentTerminal? terminal = !available.Has(GuestDriver.Vsock) && available.Has(GuestDriver.VirtioConsole) ? new AgentTerminal() : null;
        bool usesConsole = terminal is not null;
        ModulePlan modules = available.Plan(ExecOptionsReader.Drivers(options, usesConsole));
        modules.RequireAll(kernel);
        using var initramfs = new GuestInitramfs(modules.Load, description => ExecOptionsReader.Describe(options, description, usesConsole));
        if (options.DryRun)
        {
            output.Write(ExecDryRun.Text(ExecOptionsReader.ToRun(options, kernel.ImagePath, "INITRAMFS", usesConsole ? null : "VSOCK"), initramfs, session.Command));
            return ExitCode.Success;
        }
        RunCommand.RequireVirtualisation(options.Force, kernel.ImagePath);
        // Before anything is made that a signal could leave behind, and before the first thread, that of the log. Signals are heard until all of that is gone.
        using var process = new MachineProcess(jail, hasDevices: true);
        using GuestDirectory directory = options.Name is string name ? GuestDirectory.Claim(name) : GuestDirectory.Create();
        if (usesConsole && options.Name is not null)
            directory.RefuseOthers();
        using MachineSandbox? sandbox = process.Sandbox;    // its spawner removes the directory: it ends before the name is free
        if (sandbox is not null)
            directory.LeaveTo(sandbox.Spawner);     // at once: whoever is killed leaves nothing behind
        MachineConfig config = RunOptionsReader.Read(ExecOptionsReader.ToRun(options, kernel.ImagePath, initramfs.Path, usesConsole ? null : directory.Socket));
        config = terminal?.Attach(config) ?? config;
        using var log = new KernelLog(OpenDmesg(options.Dmesg ?? (options.Verbose ? "-" : null)));
        sandbox?.Allow(MachineSystemCalls.OfCommand(session.HasTerminal));
        var run = new ExecRun(config with { Serial = new SerialConfig(SerialKind.Descriptor, Descriptor: log.Writing) }, process, session, directory, terminal);
        (MachineEnd? machine, CommandEnd end) = run.Run();
        log.WaitForEnd();
        if (session.Times.Ended != 0)
            phases?.Tell(run.GuestStarted, session.Times);
        var report = new ExecReport(session.Command, options.Quiet, session.TimeLimit, log)
        {
            Advice = modules.Advice(kernel),
            HasStarted = session.HasStarted,
            IsLogShown = options.Verbose || options.Dmesg == "-",
        };
        int status = report.Tell(machine, end);
        report.TellOfDmesg(options.Dmesg);
        return status;
    }

    private static DefaultsFile? FindDefaults(ExecOptions options) => options switch
    {
        { NoConfig: true } or { Attach: not null } => null,
        { Config: string path } => DefaultsFile.Open(path),
        { WorkDir: not null } when WorkingDirectory.Problem is not null => null,     // the command does not run here
        _ => DefaultsFile.Find(ProcessText.CurrentDirectory()),
    };

    private static bool IsTerminal(FileDescriptor? stream) => stream is not null && Terminal.TryOpen(stream) is not null;

    private static bool IsSameFile(FileDescriptor? output, FileDescriptor? error) => output is not null && error is not null && FileKind.IsSame(output, error);

    private static FileDescriptor? OpenDmesg(string? path)
    {
        try
        {
            return path switch
            {
                null => null,
                "-" => StandardStream.Error,
                _ => FileDescriptor.Open(path, OpenMode.CreateTruncate),
            };
        }
        catch (ErrnoException e)
        {
            throw new VmmException($"--dmesg {path}: {e.Message}", e);
        }
    }
}
