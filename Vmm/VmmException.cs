namespace Vmm;

/// <summary>A run failed for a reason that the user can understand: the message is the whole line shown. Exit status 1.</summary>
internal sealed class VmmException(string message, Exception? inner = null) : Exception(message, inner)
{
    /// <summary>What helps to find the reason, several lines of it, shown after the message; a vCPU's registers.</summary>
    public string? Details { get; init; }
}
