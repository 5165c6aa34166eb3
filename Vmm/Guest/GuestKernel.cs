namespace Vmm.Guest;

/// <summary>A kernel for a test guest.</summary>
/// <param name="ImagePath">The file that is booted: a bzImage, or an ELF file.</param>
/// <param name="Release">Its release, as <c>uname -r</c> says in the guest; null if nothing tells.</param>
/// <param name="Modules">Where its modules are: a directory such as /lib/modules/RELEASE, or a build tree; null if there is none, and whatever
/// it needs has to be built in.</param>
/// <param name="IsBuildTree">Whether <paramref name="Modules"/> is a tree in which a kernel was built: modules lie beside their sources.</param>
/// <param name="AreModulesConfined">Whether only files in <paramref name="Modules"/> are modules, and no links: the user has not chosen that directory.</param>
internal sealed record GuestKernel(string ImagePath, string? Release, string? Modules, bool IsBuildTree = false, bool AreModulesConfined = false);
