using System.Text;
using Vmm.Devices.Virtio.VhostUser;

namespace Vmm.Cli;

/// <summary>The value of <c>--fs</c>: <c>tag=NAME,source=DIR[,sandbox=namespace|chroot]</c> or <c>[tag=NAME,]socket=PATH…</c>, then
/// <c>[,queues=N][,dax=on]</c> and the keys of <see cref="VhostUserPeerKeys"/>.</summary>
internal static class FsOption
{
    /// <summary>The option's name.</summary>
    public const string Name = "--" + Option;

    /// <summary>The same without its dashes.</summary>
    public const string Option = "fs";

    /// <summary>The keys of a file system whose daemon is there.</summary>
    public static readonly string[] Keys = ["tag", "queues", "dax", .. VhostUserPeerKeys.All];

    /// <summary>The device that <paramref name="text"/> describes.</summary>
    /// <exception cref="UsageException">The value is malformed or contradicts itself.</exception>
    public static FsOptions Parse(string text)
    {
        KeyValueList list = KeyValueList.Parse(Name, text, ["source", "sandbox", .. Keys]);
        if (list.Find("source") is not { } source)
        {
            if (list.Find("sandbox") is { } sandbox)
                throw sandbox.Refuse("has no effect without source=: it is for a daemon that is started here");
            if (list.Find("socket") is null && list.Find("fd") is null)
            {
                throw new UsageException(
                    $"{Name}: '{text}' names no daemon: write source=DIR to have one started, or socket=PATH of one that runs, or fd=N");
            }
            return Read(Name, text, list);
        }
        foreach (string key in new[] { "socket", "fd", "server" })
        {
            if (list.Find(key) is { } both)
                throw both.Refuse("cannot stand beside source=: either there is a daemon, or one is started");
        }
        if (list.Find("tag") is null)
            throw new UsageException($"{Name}: '{text}' has no tag, by which the guest mounts it: write tag=NAME");
        return Read(list, VhostUserPeerKeys.ParseRest(list)) with
        {
            Source = new FsSource(
                source.Text, list.Find("sandbox") is { } chosen ? Choice.Parse(chosen, ("namespace", "namespace"), ("chroot", "chroot")) : "namespace"),
        };
    }

    /// <summary>The device that <paramref name="list"/>, with no more than <see cref="Keys"/>, describes.</summary>
    /// <exception cref="UsageException">A value is wrong.</exception>
    public static FsOptions Read(string option, string text, KeyValueList list) =>
        Read(list, VhostUserPeerKeys.Parse(option, text, list));

    private static FsOptions Read(KeyValueList list, VhostUserPeer peer) => new()
    {
        Tag = list.Find("tag") is { } tag ? ParseTag(tag) : null,
        Peer = peer,
        Queues = list.Find("queues") is { } queues ? (int)NumberValue.Parse(queues, 1, FsOptions.MaxQueues) : 1,
        Dax = list.Find("dax") is { } dax && Choice.ParseSwitch(dax),
    };

    private static string ParseTag(OptionValue value) => Encoding.UTF8.GetByteCount(value.Text) <= FsOptions.MaxTagBytes
        ? value.Text
        : throw value.Refuse($"is too long: a tag has at most {FsOptions.MaxTagBytes} bytes");
}
