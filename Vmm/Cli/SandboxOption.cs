using System.Globalization;
using Vmm.Sandbox;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Cli;

/// <summary>The option <c>--sandbox</c>, and <c>--user</c> and <c>--chroot</c> of <c>vmm run</c>.</summary>
internal static class SandboxOption
{
    // name:password:number:group:… (passwd(5)), name:password:number:… (group(5))
    private const int NameField = 0, NumberField = 2, GroupField = 3;

    /// <summary>What becomes of the process; null if it is not to be confined.</summary>
    /// <param name="options">The options.</param>
    /// <param name="root">Where the host's file system begins, for the names of users and groups.</param>
    /// <exception cref="UsageException">A value is wrong.</exception>
    public static JailOptions? Parse(RunOptions options, string root = "/")
    {
        bool isOn = Choice.ParseSwitch(new OptionValue("--sandbox", null, options.Sandbox ?? "on"));
        if (!isOn && (options.User ?? options.Chroot) is not null)
            throw new UsageException($"{(options.User is null ? "--chroot" : "--user")}: is a part of the sandbox: leave --sandbox off out");
        return isOn ? new JailOptions { Identity = ParseUser(options.User, root), Root = ParseRoot(options.Chroot) } : null;
    }

    private static (uint User, uint Group)? ParseUser(string? text, string root)
    {
        if (text is null)
            return null;
        var value = new OptionValue("--user", null, text);
        string[] parts = text.Split(':');
        if (parts.Length > 2 || Array.Exists(parts, part => part.Length == 0))
            throw value.Refuse("is not USER or USER:GROUP");
        string passwd = Path.Join(root, "etc/passwd");
        string[]? entry = Find(passwd, NameField, parts[0]) ?? Find(passwd, NumberField, parts[0]);
        uint user = Number(entry?[NumberField] ?? parts[0]) ?? throw value.Refuse("names a user who is not in /etc/passwd");
        if (user == 0)
            throw value.Refuse("is root: give a user who has no rights");
        string? group = parts.Length == 2 ? Find(Path.Join(root, "etc/group"), NameField, parts[1])?[NumberField] ?? parts[1] : entry?[GroupField];
        uint groupNumber = Number(group ?? throw value.Refuse("names no user of /etc/passwd, and no group: give USER:GROUP"))
            ?? throw value.Refuse("names a group that is not in /etc/group");
        if (groupNumber == 0)
            throw value.Refuse("has the group of root, whose files the process could use: give another group as USER:GROUP");
        return (user, groupNumber);
    }

    private static string? ParseRoot(string? text)
    {
        if (text is null)
            return null;
        var value = new OptionValue("--chroot", null, text);
        string path = RealPath.Absolute(text);
        if (!FileKind.IsDirectory(path))
            throw value.Refuse("is no directory: make an empty one first");
        bool isEmpty;
        try
        {
            // By its descriptor: the runtime does not keep a name that is not UTF-8.
            using FileDescriptor directory = FileTree.OpenDirectory(path);
            using HeldDescriptor held = directory.Hold();
            isEmpty = !Directory.EnumerateFileSystemEntries($"/proc/self/fd/{held.Number}").Any();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw value.Refuse($"cannot be read: {e.Message}");
        }
        return isEmpty ? path : throw value.Refuse("is not empty: whoever takes the process over would have what is in it; give an empty directory");
    }

    private static string[]? Find(string file, int field, string text)
    {
        try
        {
            foreach (string line in File.ReadLines(file))
            {
                string[] fields = line.Split(':');
                if (fields.Length > 3 && fields[field] == text)
                    return fields;
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // Then there are numbers only.
        }
        return null;
    }

    // The last number means "unchanged" (setresuid(2)).
    private static uint? Number(string text) =>
        uint.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out uint number) && number != uint.MaxValue ? number : null;
}
