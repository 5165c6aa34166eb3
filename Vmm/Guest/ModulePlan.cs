using Vmm.Vhost.Native;

namespace Vmm.Guest;

/// <summary>What it takes to have a kernel drive what a guest needs.</summary>
/// <param name="Load">The modules, each behind those that it depends on.</param>
/// <param name="Missing">The drivers that the kernel has neither built in nor as a module, without the optional ones.</param>
internal sealed record ModulePlan(IReadOnlyList<ModuleFile> Load, IReadOnlyList<GuestDriver> Missing)
{
    /// <summary>The drivers that are taken to be built in because nothing tells, without the optional ones.</summary>
    public IReadOnlyList<GuestDriver> Assumed { get; init; } = [];

    /// <summary>What to do if the guest cannot be set up although no driver is known to be missing; null if nothing is to be done.</summary>
    /// <param name="kernel">The kernel.</param>
    public string? Advice(GuestKernel kernel) => Assumed.Count == 0
        ? null
        : $"no modules of kernel {kernel.Release ?? kernel.ImagePath} are on this host: install its package, name their directory by --modules, "
            + $"or take a kernel with {Symbols(Assumed)} built in";

    /// <summary>Fails if a driver is missing.</summary>
    /// <param name="kernel">The kernel, for the message.</param>
    /// <exception cref="VmmException">The message names the symbols of the kernel's configuration.</exception>
    public void RequireAll(GuestKernel kernel)
    {
        if (Missing.Count == 0)
            return;
        string name = kernel.Release ?? kernel.ImagePath;
        // Nobody knows what is in it.
        if (!kernel.IsBuildTree && !FileKind.IsFile(Path.Combine(kernel.Modules!, "modules.dep")))
        {
            throw new VmmException($"kernel {name} has no {Symbols(Missing)} built in, and {kernel.Modules} has no modules.dep, which says where its modules are: "
                + $"run depmod {kernel.Release ?? "RELEASE"} (depmod -b DIR, if it is DIR/lib/modules/{kernel.Release ?? "RELEASE"}), or take another kernel");
        }
        throw new VmmException($"kernel {name} has no {Symbols(Missing)}, neither built in nor as a module in {kernel.Modules}: "
            + (kernel.IsBuildTree ? "set it to y or m and build the kernel and its modules (make)" : "take another kernel, or name its modules by --modules"));
    }

    private static string Symbols(IReadOnlyList<GuestDriver> drivers) => string.Join(", ", drivers.Select(driver => driver.Symbol));
}
