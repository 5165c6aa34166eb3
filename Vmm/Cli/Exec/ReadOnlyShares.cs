using Vmm.Vhost.Native;

namespace Vmm.Cli.Exec;

/// <summary>What a guest may only read must not be a part of what it may write to: each shared directory has a back-end of its own, and that of the larger one knows nothing
/// of the smaller one.</summary>
internal static class ReadOnlyShares
{
    /// <summary>Looks at the directories that a guest is given.</summary>
    /// <param name="writable">Those that it may write to, with the option that says so.</param>
    /// <param name="readOnly">Those that it may only read.</param>
    /// <exception cref="UsageException">One of these is one of those or lies in it, links resolved.</exception>
    public static void Check(IReadOnlyList<(string Option, string Path)> writable, IReadOnlyList<(string Option, string Path)> readOnly)
    {
        foreach ((string option, string path) in readOnly)
        {
            if (Covering(writable, path) is (string other, string place))
                throw new OptionValue(option, null, path).Refuse($"is a part of {place}, which the guest may write to ({other}): move it away, or share less of that");
        }
    }

    /// <summary>The first of <paramref name="shares"/> that <paramref name="path"/> is or lies in, links resolved; null if there is none.</summary>
    public static (string Option, string Place)? Covering(IReadOnlyList<(string Option, string Path)> shares, string path)
    {
        if (shares.Count == 0)
            return null;
        string real = Real(path);
        foreach ((string option, string share) in shares)
        {
            string place = Real(share);
            if (RealPath.IsIn(real, place))
                return (option, place);
        }
        return null;
    }

    // One that is not there, or may not be looked for, is told of by who opens it.
    private static string Real(string path) => RealPath.TryResolve(path) ?? RealPath.Absolute(path);
}
