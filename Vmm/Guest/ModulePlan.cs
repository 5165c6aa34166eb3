namespace Vmm.Guest;

/// <summary>What it takes to have a kernel drive what a guest needs.</summary>
/// <param name="Load">The modules, each behind those that it depends on.</param>
/// <param name="Missing">The drivers that the kernel has neither built in nor as a module, without the optional ones.</param>
internal sealed record ModulePlan(IReadOnlyList<ModuleFile> Load, IReadOnlyList<GuestDriver> Missing)
{
    /// <summary>Fails if a driver is missing.</summary>
    /// <param name="kernel">The kernel, for the message.</param>
    /// <exception cref="VmmException">The message names the symbols of the kernel's configuration.</exception>
    public void RequireAll(GuestKernel kernel)
    {
        if (Missing.Count == 0)
            return;
        string symbols = string.Join(", ", Missing.Select(driver => driver.Symbol));
        throw new VmmException($"kernel {kernel.Release ?? kernel.ImagePath} has no {symbols}, neither built in nor as a module in {kernel.Modules}: "
            + (kernel.IsBuildTree ? "set it to y or m and build the kernel and its modules (make)" : "take another kernel, or name its modules by --modules"));
    }
}
