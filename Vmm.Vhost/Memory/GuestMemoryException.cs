namespace Vmm.Vhost.Memory;

/// <summary>Guest memory cannot be had as asked for, or a guest-physical range does not lie in it.</summary>
public sealed class GuestMemoryException(string message, Exception? inner = null) : Exception(message, inner);
