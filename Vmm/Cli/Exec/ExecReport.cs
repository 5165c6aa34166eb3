using Vmm.Guest;
using Vmm.Machine;
using Vmm.Vhost.Native;

namespace Vmm.Cli.Exec;

/// <summary>Says on standard error what the command's own output does not: why it did not run, or why the guest ended. And finds the status.</summary>
internal sealed class ExecReport(GuestCommand command, bool isQuiet, TimeSpan? timeout, KernelLog? log)
{
    private const int ShownOfTrouble = 60;
    private const int ShownOfTheEnd = 8;

    // What the agent says of the guest's end that concerns others than the command: disks that are still in use, and output that did not come whole.
    private static readonly string[] s_ofTheEnd = ["cannot unmount ", "cannot end swap ", "does not wait "];

    /// <summary>What to do if the guest could not be set up; null where nothing is known.</summary>
    public string? Advice { get; init; }

    /// <summary>Whether the command has run: then the guest was set up, whatever its agent has complained of before.</summary>
    public bool HasStarted { get; init; }

    /// <summary>Whether standard error has all that the guest's kernel says already.</summary>
    public bool IsLogShown { get; init; }

    /// <summary>Where it is said: standard error, unless a test listens.</summary>
    public TextWriter Errors { get; init; } = StandardWriter.Error();

    /// <summary>Tells of the end.</summary>
    /// <param name="machine">How the machine ended.</param>
    /// <param name="end">How the command ended.</param>
    /// <returns>The exit status.</returns>
    public int Tell(MachineEnd? machine, CommandEnd end)
    {
        // The agent has told of the end.
        if (end.Kind is <= CommandEndKind.OutOfMemory or CommandEndKind.OutputLost or CommandEndKind.InputLost)
            TellOfTheEnd();
        switch (end.Kind)
        {
            case CommandEndKind.Exited:
                if (end.Value != 0)
                    TellOfMemory(end);
                return end.Value;
            case CommandEndKind.OutOfMemory:
                Say("the guest ran out of memory, and its kernel killed the command: raise --memory");
                return ExitCode.ExecFailure;
            case CommandEndKind.Killed:
                TellOfMemory(end);
                return ExitCode.OfKilled(end.Value);
            case CommandEndKind.NotExecuted:
                Say($"cannot run {end.What}: {Errnos.Describe(end.Value)}");
                return end.Value == Errnos.Enoent ? ExitCode.NotFound : ExitCode.NotExecutable;
            case CommandEndKind.NotPrepared:
                Say(end.Value == 0 ? end.What : $"{end.What}: {Errnos.Describe(end.Value)}");
                return ExitCode.ExecFailure;
            case CommandEndKind.OutputLost:
                Say($"cannot write to {end.What}, so that a part of what {Name} wrote is lost: {Errnos.Describe(end.Value)}");
                return ExitCode.ExecFailure;
            case CommandEndKind.InputLost:
                Say($"cannot read {end.What}, so that {Name} did not get all of it: {Errnos.Describe(end.Value)}");
                return ExitCode.ExecFailure;
            case CommandEndKind.TimedOut:
                Say(HasStarted ? $"{Name} took longer than {timeout?.TotalSeconds} s (--timeout)"
                    : $"{(machine is null && log is not null ? "the guest's devices were" : "the guest was")} not ready within {timeout?.TotalSeconds} s (--timeout), and {Name} had not started");
                ShowLog();
                if (!isQuiet && machine is not null && log is { Lines: [] })
                    Say("the guest's kernel has said nothing: --dmesg - shows all that it says");
                return ExitCode.ExecTimeout;
            case CommandEndKind.Left:
                Say($"left by Ctrl-]: {(log is null ? "the command is killed, and the guest goes on" : "the guest is switched off")}");
                return ExitCode.ExecFailure;
            case CommandEndKind.Unresponsive:
                Say($"the guest has not taken signal {end.Value} within 5 s: it is {(log is null ? "left" : "switched off")}");
                ShowLog();
                return ExitCode.Signal(end.Value);
            default:
                return TellOfMachine(machine);
        }
    }

    /// <summary>Says so where the kernel's log is not whole in <paramref name="path"/>, the value of <c>--dmesg</c>.</summary>
    public void TellOfDmesg(string? path)
    {
        if (log is { CopyError: not 0 })
            Say($"--dmesg {path}: a part of what the guest's kernel said is missing: {Errnos.Describe(log.CopyError)}");
    }

    /// <summary>Says where the guest gets less than a vmm.toml says.</summary>
    public void TellOfDefaults(IReadOnlyList<string> notes)
    {
        foreach (string note in isQuiet ? [] : notes)
            Say(note);
    }

    private string Name => command.Arguments.Count > 0 ? command.Arguments[0] : "the shell";

    // Of a command that has failed: that may be the reason.
    private void TellOfMemory(CommandEnd end)
    {
        if (end.OutOfMemoryKills > 0)
            Say($"the guest ran out of memory, and its kernel killed {(end.OutOfMemoryKills == 1 ? "a process" : $"{end.OutOfMemoryKills} processes")}: raise --memory");
    }

    private void TellOfTheEnd()
    {
        foreach (string error in (log?.AgentErrors ?? []).Where(error => Array.Exists(s_ofTheEnd, part => error.StartsWith(part, StringComparison.Ordinal))).Distinct().Take(ShownOfTheEnd))
            Say($"the guest {error}");
    }

    private int TellOfMachine(MachineEnd? machine)
    {
        if (machine is { Kind: MachineEndKind.Signal } ended)
            return ExitCode.Signal(ended.Signal);
        if (log is null)
        {
            Say($"the guest has ended before {Name} had");
            return ExitCode.ExecFailure;
        }
        Say(WhatHappened(machine, log));
        ShowLog();
        return ExitCode.ExecFailure;
    }

    /// <summary>Why a guest has ended before its command, in words.</summary>
    internal string WhatHappened(MachineEnd? machine, KernelLog log)
    {
        // A panic first: whatever the agent has complained of before, such as a module that it could not load, it went on.
        if (machine is { Kind: MachineEndKind.Panic } || log.Panic is not null)
            return $"the guest's kernel panicked before {Name} had ended{(log.Panic is string panic ? $": {panic}" : "")}";
        return !HasStarted && log.AgentError is string error
            ? $"the guest could not be set up: {error}{(Advice is null ? "" : $"; {Advice}")}"
            : $"the guest {WhatItDid(machine, log)} before {Name} had ended";
    }

    private static string WhatItDid(MachineEnd? machine, KernelLog log) => machine?.Kind switch
    {
        _ when log.AgentWasKilled => "lost its agent, which somebody in it has killed,",
        MachineEndKind.Reset or MachineEndKind.ResetLoop => "was rebooted",
        MachineEndKind.EarlyFault => "reset by a triple fault",
        MachineEndKind.EarlyHalt => "halted",
        MachineEndKind.Quit => "lost the connection with its agent",
        _ => "powered off",
    };

    private void ShowLog()
    {
        if (isQuiet || IsLogShown || log is null)
            return;
        foreach (string line in log.Trouble(ShownOfTrouble))
            Write(line);
    }

    private void Say(string what) => Write($"vmm: {OneLine.Of(what)}");

    private void Write(string line)
    {
        try
        {
            Errors.WriteLine(line);
        }
        catch (ErrnoException)
        {
            // Standard error is gone; the exit status still tells.
        }
    }
}
