using Vmm.Boot;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Guest;

/// <summary>Finds the kernel for a test guest: the one that the user names by a file, a release or a tree in which it was built; else the host's own.</summary>
/// <param name="root">The host's root directory.</param>
/// <param name="running">The release of the host's own kernel.</param>
internal sealed class KernelSearch(string root, string running)
{
    private const string Option = "--kernel";

    // Where distributions put images, in the order in which they are tried. NixOS has its own kernel only by the last one.
    private static readonly string[] s_places =
        ["boot/vmlinuz-{0}", "lib/modules/{0}/vmlinuz", "usr/lib/modules/{0}/vmlinuz", "boot/kernel-{0}", "boot/vmlinux-{0}", "usr/lib/kernel/vmlinuz-{0}"];

    private static readonly string[] s_moduleRoots = ["lib/modules", "usr/lib/modules", "run/booted-system/kernel-modules/lib/modules"];

    private const string NixKernel = "run/booted-system/kernel";

    /// <summary>Finds a kernel on this host.</summary>
    /// <param name="kernel">What <c>--kernel</c> says: RELEASE, if it is installed, else PATH or BUILD-TREE; null for the running kernel, or the newest if its image is not here.</param>
    /// <param name="modules">What <c>--modules</c> says: a directory such as /lib/modules/RELEASE, or one with lib/modules/RELEASE in it; null for where
    /// they belong.</param>
    /// <param name="areModulesFound">Whether the modules, if they are not of a kernel that is installed, are somebody's whom the user has not named.</param>
    /// <exception cref="VmmException">There is none, or it cannot be read; one line that says what to do.</exception>
    public static GuestKernel Find(string? kernel, string? modules, bool areModulesFound = false) =>
        new KernelSearch("/", File.ReadAllText("/proc/sys/kernel/osrelease").Trim()).Search(kernel, modules, areModulesFound);

    /// <summary>Whether a kernel with this release is installed on this host.</summary>
    public static bool IsInstalled(string release) => KernelRelease.IsValid(release) && new KernelSearch("/", "").ImageOf(release) is not null;

    /// <inheritdoc cref="Find"/>
    public GuestKernel Search(string? kernel, string? modules, bool areModulesFound = false)
    {
        GuestKernel found = kernel switch
        {
            null => FindDefault(),
            "" => throw new VmmException($"{Option}: is empty; name a file, a release or a tree in which a kernel was built"),
            // Before what is in the working directory: that may be anybody's.
            _ when KernelRelease.IsValid(kernel) && ImageOf(kernel) is string installed => Installed(installed, kernel),
            _ when FileKind.IsDirectory(kernel) => FindInDirectory(kernel),
            _ when FileKind.IsFile(kernel) || kernel.Contains('/', StringComparison.Ordinal) || !KernelRelease.IsValid(kernel) => FromFile(kernel),
            _ => throw NoRelease(kernel),
        };
        if (modules is not null)
            found = UseModules(found, modules);
        return found with { AreModulesConfined = areModulesFound && found.Modules is string directory && !s_moduleRoots.Any(place => RealPath.IsIn(RealPath.Absolute(directory), In(place))) };
    }

    private GuestKernel FindDefault()
    {
        if (ImageOf(running) is string own)
            return Installed(own, running);
        if (FileKind.IsFile(In(NixKernel)))
            return Installed(In(NixKernel), running);
        // A file's name is not always its kernel's release, as in vmlinuz-linux-lts and vmlinuz-6.1.0.old.
        (string Name, string Image, string? Release)[] images =
            [.. Releases().Select(name => (Name: name, Image: ImageOf(name)!)).Select(each => (each.Name, each.Image, OwnRelease(each.Image) ?? (char.IsAsciiDigit(each.Name[0]) ? each.Name : null)))];
        if (images.Length == 0)
        {
            throw new VmmException($"no kernel was found: neither the running one, {running}, nor another has an image in {In("boot")} or {In("lib/modules")}; "
                + $"install one (Debian: apt-get install linux-image-cloud-amd64), or name one by {Option}");
        }
        Array.Sort(images, (left, right) =>
            left.Release == running != (right.Release == running) ? (left.Release == running).CompareTo(right.Release == running)
            : left.Release is null || right.Release is null ? (left.Release is not null).CompareTo(right.Release is not null)
            : left.Release != right.Release ? KernelRelease.Compare(left.Release, right.Release)
            : (left.Name == left.Release).CompareTo(right.Name == right.Release));
        return Installed(images[^1].Image, images[^1].Name);
    }

    // Null if it says none, or nobody may look: who takes it is told then.
    private static string? OwnRelease(string image)
    {
        try
        {
            using ImageFile file = ImageFile.OpenKernel(image);
            return KernelRelease.Read(file);
        }
        catch (VmmException)
        {
            return null;
        }
    }

    private VmmException NoRelease(string release)
    {
        string[] others = [.. Releases()];
        Array.Sort(others, KernelRelease.Compare);
        string known = others.Length == 0 ? "there is none" : $"there are {string.Join(", ", others.TakeLast(5))}";
        return new VmmException($"{Option}: no file and no kernel is called {release}: {known} in {In("boot")} and {In("lib/modules")}; install it, or name its file");
    }

    // A tree in which a kernel was built, or a directory such as /lib/modules/RELEASE.
    private GuestKernel FindInDirectory(string path)
    {
        foreach (string image in new[] { "arch/x86/boot/bzImage", "vmlinux" })
        {
            if (FileKind.IsFile(Path.Combine(path, image)) && IsBuildTree(path))
                return FromTree(Path.Combine(path, image), path);
        }
        if (IsBuildTree(path))
            throw new VmmException($"{Option}: {path} has no arch/x86/boot/bzImage yet: build the kernel (make bzImage)"
                + (ReleaseOf(path) is string built ? $"; if these are only the headers of a kernel that is installed, write {Option} {built}" : ""));
        string release = Path.GetFileName(Path.TrimEndingDirectorySeparator(RealPath.Absolute(path)));
        string own = Path.Combine(path, "vmlinuz");
        if (FileKind.IsFile(own))
            return Open(own, Option) with { Modules = path };
        if (HasModules(path) && KernelRelease.IsValid(release) && ImageOf(release) is string installed)
            return Open(installed, Option) with { Modules = path };
        throw new VmmException($"{Option}: {path} is a directory without a kernel: name an image, or a tree in which a kernel was built (with arch/x86/boot/bzImage)");
    }

    private GuestKernel FromFile(string path)
    {
        if (TreeOf(path) is string tree)
            return FromTree(path, tree);
        GuestKernel kernel = Open(path, Option);
        if (kernel.Release is not string release)
            return kernel;
        return kernel with { Modules = ModulesBeside(Path.GetDirectoryName(RealPath.Absolute(path))!, release) ?? ModulesIn(root, release) };
    }

    private GuestKernel Installed(string image, string release)
    {
        GuestKernel kernel = Open(image, option: null);
        return kernel with { Release = kernel.Release ?? release, Modules = ModulesIn(root, kernel.Release ?? release) };
    }

    private static GuestKernel FromTree(string image, string tree)
    {
        GuestKernel kernel = Open(image, Option);
        string? release = HostFile.TryReadLine(Path.Combine(tree, "include/config/kernel.release"));
        return new GuestKernel(image, release is { Length: > 0 } ? release : kernel.Release, tree, IsBuildTree: true);
    }

    private static GuestKernel UseModules(GuestKernel kernel, string modules)
    {
        if (!FileKind.IsDirectory(modules))
            throw new VmmException($"--modules: {modules} is not a directory");
        if (IsBuildTree(modules) && !HasModules(modules))
        {
            return !IsOfHeaders(modules)
                ? kernel with { Modules = modules, IsBuildTree = true }
                : throw new VmmException($"--modules: {modules} is a tree in which no module was built: build them (make modules); if these are only the headers of a kernel, name /lib/modules/{ReleaseOf(modules)}");
        }
        string? directory = HasModules(modules) ? modules : kernel.Release is string release ? ModulesIn(modules, release) : null;
        return directory is not null
            ? kernel with { Modules = directory, IsBuildTree = false }
            : throw new VmmException($"--modules: {modules} has neither modules.dep nor lib/modules/{kernel.Release ?? "RELEASE"} in it: name the directory that "
                + "make modules_install or the kernel's package has made, or run depmod");
    }

    private static GuestKernel Open(string image, string? option)
    {
        try
        {
            using ImageFile file = ImageFile.OpenKernel(image);
            return new GuestKernel(image, KernelRelease.Read(file), Modules: null);
        }
        catch (VmmException e) when (e.InnerException is ErrnoException { Errno: Errnos.Eacces })
        {
            // Ubuntu's kernels are root's alone to read.
            throw new VmmException($"kernel {image} is not yours to read: run sudo chmod 0644 {image}"
                + (option is null ? $", or name another by {Option} (apt-get download and dpkg-deb -x get one without root)" : ""), e);
        }
    }

    // The tree of arch/x86/boot/bzImage, also by the link in arch/x86_64/boot. Nobody named it, either.
    private static string? TreeOf(string image)
    {
        string full = RealPath.Absolute(image);
        foreach (string end in new[] { "/arch/x86/boot/bzImage", "/arch/x86_64/boot/bzImage", "/vmlinux" })
        {
            if (full.EndsWith(end, StringComparison.Ordinal) && IsBuildTree(full[..^end.Length]) && FileOwner.IsTrustedDirectory(full[..^end.Length], allowsSticky: false))
                return full[..^end.Length];
        }
        return null;
    }

    private static bool IsBuildTree(string path) =>
        FileKind.IsFile(Path.Combine(path, "include/config/kernel.release")) || FileKind.IsFile(Path.Combine(path, "include/config/auto.conf"));

    // A distribution's package of headers is such a tree, too, without a kernel and without modules. Only one that was built has a list of its modules.
    private static bool IsOfHeaders(string tree) => ReleaseOf(tree) is not null && !FileKind.IsFile(Path.Combine(tree, "modules.order"))
        && !FileKind.IsFile(Path.Combine(tree, "vmlinux")) && !FileKind.IsFile(Path.Combine(tree, "arch/x86/boot/bzImage"));

    private static string? ReleaseOf(string tree) =>
        HostFile.TryReadLine(Path.Combine(tree, "include/config/kernel.release")) is { } release && KernelRelease.IsValid(release) ? release : null;

    private static bool HasModules(string path) =>
        FileKind.IsFile(Path.Combine(path, "modules.dep")) || FileKind.IsFile(Path.Combine(path, "modules.builtin"));

    // Of a package that was unpacked somewhere, boot/ and lib/modules/ lie beside each other. Nobody named them: another user must not be able to have put them there.
    private static string? ModulesBeside(string directory, string release)
    {
        if (Path.GetFileName(directory) != "boot" || Path.GetDirectoryName(directory) is not string package || ModulesIn(package, release) is not string found
            || !FileOwner.IsTrustedDirectory(found, allowsSticky: false))
        {
            return null;
        }
        string place = found;
        do
        {
            place = Path.GetDirectoryName(place)!;
            if (!FileOwner.IsTrustedDirectory(place, allowsSticky: true))
                return null;
        }
        while (place != package);
        return found;
    }

    private static string? ModulesIn(string directory, string release)
    {
        foreach (string place in s_moduleRoots)
        {
            string candidate = Path.Combine(directory, place, release);
            if (HasModules(candidate))
                return candidate;
        }
        return null;
    }

    private string? ImageOf(string release)
    {
        foreach (string place in s_places)
        {
            string path = In(place.Replace("{0}", release, StringComparison.Ordinal));
            if (FileKind.IsFile(path))
                return path;
        }
        return null;
    }

    // All whose image is in one of the places.
    private HashSet<string> Releases()
    {
        HashSet<string> releases = [];
        foreach (string place in s_places)
        {
            int slot = place.IndexOf("{0}", StringComparison.Ordinal);
            int from = place.LastIndexOf('/', slot) + 1, to = place.IndexOf('/', slot);
            string directory = In(place[..from]), prefix = place[from..slot];
            if (!FileKind.IsDirectory(directory))
                continue;
            foreach (string entry in List(directory))
            {
                string name = Path.GetFileName(entry);
                if (name.StartsWith(prefix, StringComparison.Ordinal) && KernelRelease.IsValid(name[prefix.Length..])
                    && FileKind.IsFile(to < 0 ? entry : entry + place[to..]))
                {
                    releases.Add(name[prefix.Length..]);
                }
            }
        }
        return releases;
    }

    private static string[] List(string directory)
    {
        try
        {
            return Directory.GetFileSystemEntries(directory);
        }
        catch (UnauthorizedAccessException)
        {
            return [];
        }
    }

    private string In(string path) => Path.Combine(root, path);
}
