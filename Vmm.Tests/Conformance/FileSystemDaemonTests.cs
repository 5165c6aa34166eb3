using NUnit.Framework;
using Vmm.Tests.Integration;
using Vmm.Tests.Integration.Linux.Devices;
using Vmm.Vhost;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Tests.Conformance;

/// <summary>The front-end and our own virtio-fs daemon.</summary>
public sealed class OwnFileSystemTests() : FileSystemDaemonTests(isOwn: true);

/// <summary>The front-end and QEMU's virtiofsd.</summary>
public sealed class VirtiofsdTests() : FileSystemDaemonTests(isOwn: false);

/// <summary>The front-end and a virtio-fs daemon, with a software guest that speaks FUSE.</summary>
public abstract class FileSystemDaemonTests(bool isOwn) : PeerTest
{
    private const int QueueCount = 2;   // one for what must not wait, one for requests
    private const int Piece = 128 * 1024;
    private const ulong AllFeatures = ulong.MaxValue;
    private const ulong PlainFeatures = ~(VirtioFeatures.EventIndex | VirtioFeatures.IndirectDescriptors);

    private string Shared => Path.Combine(Scratch, "shared");

    private string Socket => Path.Combine(Scratch, "fs.sock");

    [SetUp]
    public void SetUp()
    {
        if (!isOwn)
            Require(Virtiofsd);
        if (!isOwn && !Environment.IsPrivilegedProcess)
            Assert.Ignore("needs root: virtiofsd puts itself into a sandbox");
        Directory.CreateDirectory(Shared);
    }

    [TestCase(AllFeatures)]
    [TestCase(PlainFeatures)]
    public void Files_OfBothSides_AreTheSame(ulong features)
    {
        byte[] contents = RandomBytes(5 * Piece + 12345);
        File.WriteAllBytes(Path.Combine(Shared, "hello"), contents);
        using HostDaemon daemon = StartDaemon();
        using var guest = new PeerGuest(Socket, QueueCount);
        FuseClient fuse = Begin(guest, features);

        Assert.That(fuse.Lookup(FuseClient.Root, "hello", out ulong hello, out ulong size), Is.Zero);
        Assert.That(size, Is.EqualTo(contents.Length));
        Assert.That(fuse.GetSize(hello), Is.EqualTo(contents.Length));
        ulong handle = fuse.Open(hello);
        Assert.That(ReadAll(fuse, hello, handle, contents.Length), Is.EqualTo(contents));
        Assert.That(fuse.Read(hello, handle, (ulong)contents.Length, 4096), Is.Empty, "at the end");
        fuse.Release(hello, handle);
        fuse.Forget(hello, 1);

        ulong directory = fuse.MakeDirectory(FuseClient.Root, "made");
        Assert.That(fuse.TryMakeDirectory(FuseClient.Root, "made"), Is.EqualTo(FuseClient.Exists));
        (ulong written, ulong writing) = fuse.Create(directory, "written");
        for (int at = 0; at < contents.Length; at += Piece)
            fuse.Write(written, writing, (ulong)at, contents[at..Math.Min(at + Piece, contents.Length)]);
        fuse.Synchronize(written, writing);
        fuse.Release(written, writing);
        Assert.That(File.ReadAllBytes(Path.Combine(Shared, "made", "written")), Is.EqualTo(contents), "what the host sees");

        var names = new List<string> { "written" };
        for (int i = 0; i < 50; i++)
        {
            names.Add($"file-{i}");
            (ulong node, ulong open) = fuse.Create(directory, names[^1]);
            fuse.Release(node, open);
        }
        Assert.That(fuse.List(directory), Is.EquivalentTo(names));
        fuse.Rename(directory, "file-7", FuseClient.Root, "moved");
        Assert.That(fuse.Lookup(directory, "file-7", out _, out _), Is.EqualTo(FuseClient.NoEntry));
        Assert.That(File.Exists(Path.Combine(Shared, "moved")));
        names.Remove("file-7");
        foreach (string name in names)
            fuse.Unlink(directory, name);
        fuse.RemoveDirectory(FuseClient.Root, "made");
        Assert.That(Directory.GetFileSystemEntries(Shared).Select(Path.GetFileName), Is.EquivalentTo(new[] { "hello", "moved" }));
        Assert.That(guest.Told, Is.Empty);
        Assert.That(guest.Queues.Any(queue => queue.IsBroken), Is.False);
    }

    [Test]
    public void Pause_InTheMiddle_GoesOnWhereItWas()
    {
        byte[] contents = RandomBytes(Piece);
        File.WriteAllBytes(Path.Combine(Shared, "hello"), contents);
        using HostDaemon daemon = StartDaemon();
        using var guest = new PeerGuest(Socket, QueueCount);
        FuseClient fuse = Begin(guest, AllFeatures);
        fuse.Lookup(FuseClient.Root, "hello", out ulong node, out _);
        ulong handle = fuse.Open(node);
        // INIT, LOOKUP, OPEN: so far the requests' queue has come; and one request more for each pause.
        for (uint i = 0; i < 4; i++)
        {
            Assert.That(guest.Pause(), Is.EqualTo(new uint[] { 0, 3 + i }));
            Assert.That(fuse.Read(node, handle, 0, Piece), Is.EqualTo(contents));
        }
        Assert.That(guest.Told, Is.Empty);
    }

    [Test]
    public void Reset_AndANewDriver_TheDaemonStays()
    {
        File.WriteAllText(Path.Combine(Shared, "hello"), "hello");
        using HostDaemon daemon = StartDaemon();
        using (var guest = new PeerGuest(Socket, QueueCount))
        {
            for (int i = 0; i < 3; i++)
            {
                FuseClient fuse = Begin(guest, i % 2 == 0 ? AllFeatures : PlainFeatures);
                Assert.That(fuse.Lookup(FuseClient.Root, "hello", out _, out _), Is.Zero);
                fuse.Destroy();
                guest.Reset();
            }
            Assert.That(guest.Told, Is.Empty);
            Assert.That(daemon.IsRunning);
        }
        Assert.That(daemon.WaitForEnd(), Is.Zero, "it ends with its connection");
    }

    [Test]
    public void Kill_AndStartAgain_IsConnectedTo()
    {
        File.WriteAllText(Path.Combine(Shared, "hello"), "hello");
        using HostDaemon daemon = StartDaemon();
        using var guest = new PeerGuest(Socket, QueueCount);
        FuseClient fuse = Begin(guest, AllFeatures);
        Assert.That(fuse.Lookup(FuseClient.Root, "hello", out _, out _), Is.Zero);
        daemon.Kill();
        daemon.Start();
        guest.WaitUntilRestored(1);
        // It knows nothing of its predecessor's session.
        Assert.That(fuse.Initialize().Major, Is.EqualTo(7));
        Assert.That(fuse.Lookup(FuseClient.Root, "hello", out _, out ulong size), Is.Zero);
        Assert.That(size, Is.EqualTo(5));
    }

    [Test]
    public void Negotiation_WithoutMultiqueue_TheCallersCountHolds()
    {
        File.WriteAllText(Path.Combine(Shared, "hello"), "hello");
        using HostDaemon daemon = StartDaemon();
        // As virtiofsd was before it had several queues: it does not offer MQ, and whoever asks for their number loses it.
        string filtered = Path.Combine(Scratch, "filtered.sock");
        using var filter = new MessageFilter(filtered, Socket)
        {
            HiddenFeatures = VhostUserProtocolFeatures.Mq,
            Forbidden = VhostUserRequest.GetQueueNum,
        };
        using var guest = new PeerGuest(filtered, QueueCount);
        Assert.That(guest.Frontend.ProtocolFeatures & VhostUserProtocolFeatures.Mq, Is.EqualTo(VhostUserProtocolFeatures.None));
        Assert.That(guest.Frontend.MaxRingCount, Is.Null);
        FuseClient fuse = Begin(guest, AllFeatures);
        Assert.That(fuse.Lookup(FuseClient.Root, "hello", out ulong node, out _), Is.Zero);
        ulong handle = fuse.Open(node);
        Assert.That(fuse.Read(node, handle, 0, 4096), Is.EqualTo("hello"u8.ToArray()));
        fuse.Forget(node, 1);
        Assert.That(filter.Passed, Does.Contain(VhostUserRequest.SetProtocolFeatures).And.Not.Contain(VhostUserRequest.GetQueueNum));
        Assert.That(guest.Told, Is.Empty);
    }

    [Test]
    public void Open_MoreQueuesThanItHas_IsRefusedWithTheNumber()
    {
        using HostDaemon daemon = StartDaemon();
        VhostException? error = Assert.Throws<VhostException>(() => new PeerGuest(Socket, 5).Dispose());
        Assert.That(error!.Message, Does.Contain("--test").And.Contain("5"));
    }

    private HostDaemon StartDaemon() => isOwn
        ? new HostDaemon(
            [Socket], VmmProcess.Command[0], [.. VmmProcess.Command.Skip(1), "backend", "fs", "--once", "--socket-path", Socket, "--shared-dir", Shared])
        : HostDaemon.Virtiofsd(Socket, Shared);

    private static FuseClient Begin(PeerGuest guest, ulong features)
    {
        guest.Start(features);
        var fuse = new FuseClient(guest.Heap, guest.Queues[0], guest.Queues[1]);
        Assert.That(fuse.Initialize().Major, Is.EqualTo(7));
        return fuse;
    }

    private static byte[] ReadAll(FuseClient fuse, ulong node, ulong handle, int length)
    {
        var all = new List<byte>();
        while (all.Count < length)
            all.AddRange(fuse.Read(node, handle, (ulong)all.Count, Piece));
        return [.. all];
    }

    private static byte[] RandomBytes(int length)
    {
        byte[] bytes = new byte[length];
        new Random(1).NextBytes(bytes);
        return bytes;
    }
}
