using System.Text;
using Vmm.Cli.Backend;
using Vmm.Devices;
using Vmm.Devices.Backends.FileSystem;
using Vmm.Devices.Virtio.VhostUser;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Cli;

/// <summary>The value of <c>--fs</c>: <c>tag=NAME,source=DIR[,readonly=on][,cache=…][,xattr=off][,privileged=off][,owner=root][,locks=guest][,submounts=off]</c>, for a directory that our own back-end serves,
/// <c>tag=NAME,source=DIR,daemon=PATH[,sandbox=namespace|chroot]</c> for another virtio-fs daemon that is started, or <c>[tag=NAME,]socket=PATH…</c> for one that is there; then
/// <c>[,queues=N][,dax=on]</c> (for ours also <c>dax=inode|always|never</c>) and the keys of <see cref="VhostUserPeerKeys"/>.</summary>
internal static class FsOption
{
    /// <summary>The option's name.</summary>
    public const string Name = "--" + Option;

    /// <summary>The same without its dashes.</summary>
    public const string Option = "fs";

    /// <summary>The keys of a file system whose daemon is there.</summary>
    public static readonly string[] Keys = ["tag", "queues", "dax", .. VhostUserPeerKeys.All];

    private const string Window = "1G";

    private static readonly string[] s_ownKeys = ["readonly", "cache", "xattr", "privileged", "owner", "locks", "submounts"];

    /// <summary>The device that <paramref name="text"/> describes.</summary>
    /// <exception cref="UsageException">The value is malformed or contradicts itself.</exception>
    public static FsDeviceOptions Parse(string text)
    {
        KeyValueList list = KeyValueList.Parse(Name, text, ["source", "daemon", "sandbox", .. s_ownKeys, .. Keys]);
        if (list.Find("source") is not { } source)
        {
            foreach (string key in (string[])["daemon", "sandbox", .. s_ownKeys])
            {
                if (list.Find(key) is { } own)
                    throw own.Refuse("has no effect without source=: it is for a back-end that is started here");
            }
            if (list.Find("socket") is null && list.Find("fd") is null)
            {
                throw new UsageException(
                    $"{Name}: '{text}' names no back-end: write source=DIR to have one started, or socket=PATH of one that runs, or fd=N");
            }
            return Read(Name, text, list);
        }
        foreach (string key in new[] { "socket", "fd", "server" })
        {
            if (list.Find(key) is { } both)
                throw both.Refuse("cannot stand beside source=: either there is a back-end, or one is started");
        }
        if (list.Find("tag") is null)
            throw new UsageException($"{Name}: '{text}' has no tag, by which the guest mounts it: write tag=NAME");
        return list.Find("daemon") is { } daemon ? ReadOther(list, source, daemon) : ReadOwn(list, source);
    }

    private static FsDeviceOptions ReadOwn(KeyValueList list, OptionValue source)
    {
        if (list.Find("sandbox") is { } sandbox)
            throw sandbox.Refuse("has no effect without daemon=: our own back-end is always confined to its directory");
        FsDeviceOptions options = Read(list, VhostUserPeerKeys.ParseRest(list), isOurs: true);
        if (list.Find("queues") is { } queues)
            _ = NumberValue.Parse(queues, 1, FileSystemOptions.MaxQueues);
        List<string> arguments = ["--shared-dir", source.Text, "--queues", $"{options.Queues}"];
        if (IsOn(list, "readonly"))
            arguments.Add("--readonly");
        if (list.Find("locks") is { } locks && Choice.Parse(locks, ("host", false), ("guest", true)))
            arguments.Add("--no-host-locks");
        if (list.Find("submounts") is { } submounts && !Choice.ParseSwitch(submounts))
            arguments.Add("--no-announce-submounts");
        if (list.Find("cache") is { } cache)
        {
            _ = FsBackendOptions.ParseCache(cache);
            arguments.AddRange(["--cache", cache.Text]);
        }
        if (list.Find("xattr") is { } xattr && !Choice.ParseSwitch(xattr))
            arguments.Add("--no-xattr");
        if (list.Find("privileged") is { } privileged && !Choice.ParseSwitch(privileged))
        {
            if (options.Dax)
                throw privileged.Refuse($"cannot stand beside dax={list.Find("dax")!.Value.Text}: the back-end does not see what the guest writes to files in its memory: leave one of them out");
            arguments.Add("--no-privileged-files");
        }
        // Root's numbers are the same on both sides.
        if (list.Find("owner") is { } owner && Choice.Parse(owner, ("same", false), ("root", true)) && FileOwner.User != 0)
            arguments.AddRange([FsBackendOptions.TranslateUidName, $"map:0:{FileOwner.User}:1", FsBackendOptions.TranslateGidName, $"map:0:{FileOwner.Group}:1"]);
        if (options.Dax)
            arguments.AddRange(["--dax-window", Window]);
        if (ReadDax(list, isOurs: true) == FileSystemDax.Inode)
            arguments.AddRange(["--dax", "inode"]);
        return options with { Peer = options.Peer with { Program = OwnBackend.Serve("fs", $"source={source.Text}", arguments) } };
    }

    private static FsDeviceOptions ReadOther(KeyValueList list, OptionValue source, OptionValue daemon)
    {
        foreach (string key in s_ownKeys)
        {
            if (list.Find(key) is { } own)
                throw own.Refuse("cannot stand beside daemon=: it is for our own back-end");
        }
        return Read(list, VhostUserPeerKeys.ParseRest(list)) with
        {
            Source = new FsSource(
                source.Text,
                list.Find("sandbox") is { } chosen ? Choice.Parse(chosen, ("namespace", "namespace"), ("chroot", "chroot")) : "namespace",
                daemon.Text),
        };
    }

    /// <summary>The directory that <paramref name="text"/> shares by a back-end that is started, and whether the guest may only read it; null if it shares none.</summary>
    /// <exception cref="UsageException">The value is malformed.</exception>
    public static (string Path, bool IsReadOnly)? Source(string text)
    {
        KeyValueList list = KeyValueList.Parse(Name, text, ["source", "daemon", "sandbox", .. s_ownKeys, .. Keys]);
        return list.Find("source") is { } source ? (source.Text, IsOn(list, "readonly")) : null;
    }

    /// <summary>The same device with <c>privileged=off</c>, where it is a directory that our own back-end shares for writing and <paramref name="text"/> does not speak of that itself.</summary>
    /// <exception cref="UsageException">The value is malformed, or has <c>dax=on</c> or the like, which makes that impossible.</exception>
    public static string WithoutPrivileges(string text)
    {
        KeyValueList list = KeyValueList.Parse(Name, text, ["source", "daemon", "sandbox", .. s_ownKeys, .. Keys]);
        if (list.Find("source") is null || list.Find("daemon") is not null || list.Find("privileged") is not null || IsOn(list, "readonly"))
            return text;
        if (ReadDax(list, isOurs: true) != FileSystemDax.Never)
        {
            throw list.Find("dax")!.Value.Refuse(
                "needs privileged=on or --allow-setuid beside it, or readonly=on: the back-end does not see what the guest writes to files in its memory, and cannot take set-user-id bits away then");
        }
        return text + ",privileged=off";
    }

    /// <summary>The device that <paramref name="list"/>, with no more than <see cref="Keys"/>, describes.</summary>
    /// <exception cref="UsageException">A value is wrong.</exception>
    public static FsDeviceOptions Read(string option, string text, KeyValueList list) =>
        Read(list, VhostUserPeerKeys.Parse(option, text, list));

    private static FsDeviceOptions Read(KeyValueList list, VhostUserPeer peer, bool isOurs = false) => new()
    {
        Tag = list.Find("tag") is { } tag ? ParseTag(tag) : null,
        Peer = peer,
        Queues = list.Find("queues") is { } queues ? (int)NumberValue.Parse(queues, 1, FsDeviceOptions.MaxQueues) : 1,
        Dax = ReadDax(list, isOurs) != FileSystemDax.Never,
    };

    // Another daemon than ours says by itself which files are mapped.
    private static FileSystemDax ReadDax(KeyValueList list, bool isOurs)
    {
        if (list.Find("dax") is not { } dax)
            return FileSystemDax.Never;
        if (!isOurs)
            return Choice.ParseSwitch(dax) ? FileSystemDax.Always : FileSystemDax.Never;
        return Choice.Parse(
            dax, ("on", FileSystemDax.Always), ("off", FileSystemDax.Never), ("true", FileSystemDax.Always), ("false", FileSystemDax.Never),
            ("always", FileSystemDax.Always), ("inode", FileSystemDax.Inode), ("never", FileSystemDax.Never));
    }

    private static bool IsOn(KeyValueList list, string key) => list.Find(key) is { } value && Choice.ParseSwitch(value);

    /// <summary>The name by which a guest mounts a directory.</summary>
    /// <exception cref="UsageException">It is empty, or too long.</exception>
    public static string ParseTag(OptionValue value) => value.Text.Length == 0 ? throw value.Refuse("is empty: give the name by which the guest mounts the directory")
        : Encoding.UTF8.GetByteCount(value.Text) <= FsConfig.MaxTagBytes ? value.Text
        : throw value.Refuse($"is too long: a tag has at most {FsConfig.MaxTagBytes} bytes");
}
