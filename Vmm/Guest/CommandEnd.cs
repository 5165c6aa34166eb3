namespace Vmm.Guest;

/// <summary>How a command in the guest ended, or why it has not.</summary>
/// <param name="Kind">Which.</param>
/// <param name="Value">The exit status, the signal or the error number.</param>
/// <param name="What">What could not be done.</param>
/// <param name="OutOfMemoryKills">How many processes, of whatever command, the guest's kernel has killed meanwhile because the guest as a whole was out of memory.</param>
internal sealed record CommandEnd(CommandEndKind Kind, int Value = 0, string What = "", long OutOfMemoryKills = 0);

/// <summary>The kinds of <see cref="CommandEnd"/>.</summary>
internal enum CommandEndKind
{
    /// <summary>It exited by itself.</summary>
    Exited = 0,

    /// <summary>A signal killed it.</summary>
    Killed = 1,

    /// <summary>It could not be executed.</summary>
    NotExecuted = 2,

    /// <summary>What it needs before that could not be had: the user, the working directory.</summary>
    NotPrepared = 3,

    /// <summary>The guest's kernel killed it because the guest as a whole was out of memory. The last kind that the agent tells of.</summary>
    OutOfMemory = 4,

    /// <summary>It has ended, but a part of what it wrote could not be written here.</summary>
    OutputLost,

    /// <summary>It has ended, but did not get all of its input, which could not be read here.</summary>
    InputLost,

    /// <summary>It took longer than it may.</summary>
    TimedOut,

    /// <summary>The guest's agent is gone: the guest has ended.</summary>
    Lost,

    /// <summary>The agent has not taken a signal within some seconds.</summary>
    Unresponsive,

    /// <summary>The user has left by Ctrl-].</summary>
    Left,
}
