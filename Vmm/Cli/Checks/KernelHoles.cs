namespace Vmm.Cli.Checks;

/// <summary>Known holes of the host's kernel in what serves guests' devices: vhost and vsock.</summary>
/// <remarks>The table has those for which the kernel's own CVE team tells the versions: the CVE List (cvelistV5), records of the CNA "Linux", read in
/// November 2026. A hole is closed in a branch from the named version on, and in all branches after the last one. Branches that have ended are not named.</remarks>
internal static class KernelHoles
{
    private const string Vsock = "--vsock";
    private const string Scsi = "--scsi";
    private const string Vdpa = "--vdpa";

    private static readonly Hole[] s_holes =
    [
        new("CVE-2024-43873", Vsock, "5.14", ["5.15.165", "6.1.103", "6.6.44", "6.10.3", "6.11.0"]),
        new("CVE-2024-50264", Vsock, "4.8", ["4.19.324", "5.4.286", "5.10.230", "5.15.172", "6.1.117", "6.6.61", "6.11.8", "6.12.0"]),
        new("CVE-2025-21756", Vsock, "5.5", ["5.10.235", "5.15.179", "6.1.131", "6.6.79", "6.12.16", "6.13.4", "6.14.0"]),
        new("CVE-2025-40248", Vsock, "3.9", ["5.4.302", "5.10.247", "5.15.197", "6.1.159", "6.6.118", "6.12.60", "6.17.10", "6.18.0"]),
        new("CVE-2026-23069", Vsock, "4.8", ["6.1.162", "6.6.122", "6.12.68", "6.18.8", "6.19.0"]),
        new("CVE-2024-49863", Scsi, "4.20", ["5.10.227", "5.15.168", "6.1.113", "6.6.55", "6.10.14", "6.11.3", "6.12.0"]),
        new("CVE-2025-22083", Scsi, "3.9", ["6.1.162", "6.6.87", "6.12.23", "6.13.11", "6.14.2", "6.15.0"]),
        new("CVE-2024-47748", Vdpa, "5.9", ["5.10.227", "5.15.168", "6.1.113", "6.6.54", "6.10.13", "6.11.2", "6.12.0"]),
    ];

    /// <summary>Looks.</summary>
    public static IEnumerable<Finding> Run(HostView host)
    {
        const string topic = "known holes in vhost and vsock";
        if (StableRelease.Read(host) is not (Version kernel, bool hasOthers))
        {
            return [Finding.MissingOptional(
                topic, "cannot tell: this kernel does not say which stable release of Linux it has the fixes of; its distribution's security tracker does")];
        }
        Hole[] open = [.. s_holes.Where(hole => hole.IsIn(kernel))];
        // Who maintains a branch that kernel.org has ended has its fixes, and their numbers are not in the table.
        Hole[] unknown = hasOthers ? Array.FindAll(open, hole => !hole.HasBranchOf(kernel)) : [];
        List<Finding> findings = [.. open.Except(unknown).Select(hole => Finding.MissingOptional(
            $"fix of {hole.Cve}", $"{hole.Option} has this hole: Linux {hole.FixAfter(kernel)} closes it, and this kernel is {kernel}"))];
        if (unknown.Length > 0)
        {
            findings.Add(Finding.MissingOptional(
                topic, $"cannot tell for {string.Join(", ", unknown.Select(hole => hole.Cve))}: this kernel is {kernel} with fixes of its distribution's; that one's security tracker tells"));
        }
        return findings.Count > 0 ? findings : [Finding.Ok(topic, $"none of the {s_holes.Length} that vmm knows of ({Vsock}, {Scsi}, {Vdpa}) is in Linux {kernel}")];
    }

    /// <summary>A hole.</summary>
    /// <param name="Cve">Its number.</param>
    /// <param name="Option">The option whose devices it concerns.</param>
    /// <param name="Since">The first version that has it.</param>
    /// <param name="Fixed">The first version of each branch that has it no more, rising; the last one is the main line's.</param>
    private sealed record Hole(string Cve, string Option, string Since, string[] Fixed)
    {
        /// <summary>Whether the table tells of the branch of <paramref name="kernel"/>.</summary>
        public bool HasBranchOf(Version kernel) => Branch(kernel) is not null;

        /// <summary>Whether a kernel with the fixes of this release, and no others, has the hole.</summary>
        public bool IsIn(Version kernel) => kernel >= Version.Parse(Since) && kernel < FixAfter(kernel);

        /// <summary>The version to which <paramref name="kernel"/> must be updated, or was: of its own branch, else the main line's.</summary>
        public Version FixAfter(Version kernel) => Branch(kernel) ?? Version.Parse(Fixed[^1]);

        private Version? Branch(Version kernel) =>
            Array.Find(Array.ConvertAll(Fixed, Version.Parse), version => version.Major == kernel.Major && version.Minor == kernel.Minor);
    }
}
