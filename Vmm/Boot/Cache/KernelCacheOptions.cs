namespace Vmm.Boot.Cache;

/// <summary>Unpacked kernels are kept.</summary>
/// <param name="Directory">Where: a directory that is there; null for the user's own, which is made: vmm in $XDG_CACHE_HOME, or in ~/.cache.</param>
internal sealed record KernelCacheOptions(string? Directory);
