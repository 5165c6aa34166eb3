namespace Vmm.Machine;

/// <summary>Why a run of the machine ended.</summary>
internal enum MachineEndKind
{
    /// <summary>The guest switched itself off, or halted for good after it had said or done something.</summary>
    PowerOff,

    /// <summary>The guest asked for a reset, or a vCPU shut down by a triple fault.</summary>
    Reset,

    /// <summary>The guest's kernel panicked.</summary>
    Panic,

    /// <summary>The guest resets again and again, and says nothing in between.</summary>
    ResetLoop,

    /// <summary>The guest halted for good before it said or did anything: its kernel died early.</summary>
    EarlyHalt,

    /// <summary>A vCPU of the guest shut down by a triple fault before the guest said or did anything, and it is not started again: its kernel died early.</summary>
    EarlyFault,

    /// <summary>A signal told the VMM to end.</summary>
    Signal,

    /// <summary>The user left the console by Ctrl-A x.</summary>
    Quit,

    /// <summary>A vCPU could not go on.</summary>
    Failure,
}

/// <summary>Why a run ended, with the <paramref name="Signal"/>'s number or the <paramref name="Failure"/> where there is one.</summary>
internal sealed record MachineEnd(MachineEndKind Kind, int Signal = 0, Exception? Failure = null);
