namespace Vmm;

/// <summary>The command line is wrong: exit status 2. The message is the whole line that the user sees, and names the option.</summary>
internal sealed class UsageException(string message, Exception? inner = null) : Exception(message, inner);
