using System.Diagnostics;

namespace Vmm.Guest;

/// <summary>When what happened in a session with a guest's agent: timestamps of <see cref="Stopwatch"/>, 0 for what did not happen.</summary>
/// <param name="Greeted">The agent has said hello.</param>
/// <param name="Started">The command runs.</param>
/// <param name="Ended">The command's end was told.</param>
/// <param name="Modules">From the agent's start to the last module.</param>
/// <param name="Mounts">From there until all was mounted.</param>
/// <param name="Agent">From the agent's start to its hello.</param>
internal readonly record struct AgentTimes(long Greeted, long Started, long Ended, TimeSpan Modules, TimeSpan Mounts, TimeSpan Agent);
