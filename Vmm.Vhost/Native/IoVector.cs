namespace Vmm.Vhost.Native;

/// <summary>A piece of memory for a scattered read or a gathered write; laid out as <c>struct iovec</c>, 16 bytes.</summary>
/// <param name="Address">Where it begins.</param>
/// <param name="Length">Bytes.</param>
public readonly record struct IoVector(nint Address, nuint Length);
