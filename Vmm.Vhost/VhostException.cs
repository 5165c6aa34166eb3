namespace Vmm.Vhost;

/// <summary>A back-end cannot do what was asked of it. The message is one line: which back-end, which step, why, what to do.</summary>
public class VhostException(string message, Exception? inner = null) : IOException(message, inner);
