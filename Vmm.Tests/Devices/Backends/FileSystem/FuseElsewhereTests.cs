using System.Runtime.Versioning;
using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Tests.Integration;
using static Vmm.Tests.Conformance.FuseClient;

namespace Vmm.Tests.Devices.Backends.FileSystem;

/// <summary>A directory that a server keeps (NFS, CIFS, FUSE), which may not answer for long, and says late what went wrong.</summary>
[SupportedOSPlatform("linux")]
public class FuseElsewhereTests : FileSystemTest
{
    private const int Eio = 5, Edquot = 122;
    private const uint Lookup = 1, GetAttributes = 3, Read = 15, Write = 16, Flush = 25, Rename = 12;

    private TroubledFileSystem _host = null!;

    [SetUp]
    public void Mount() => _host = new TroubledFileSystem(Shared);

    [TearDown]
    public void Unmount() => _host?.Dispose();

    [Test]
    public void Close_OfAFileThatCannotBeWritten_Fails()
    {
        FuseGuest guest = Begin();
        ulong full = guest.Node("full"), slow = guest.Node("slow");
        long handle = guest.Open(full), reading = guest.Open(full, flags: 0), other = guest.Open(slow);
        Assert.Multiple(() =>
        {
            Assert.That(guest.Try(Flush, full, FlushOf(handle)), Is.EqualTo(-Edquot));
            Assert.That(guest.Try(Flush, full, FlushOf(handle)), Is.EqualTo(-Edquot), "a duplicate of the guest's");
            Assert.That(guest.Try(Flush, full, FlushOf(reading)), Is.Zero, "nothing was written there");
            Assert.That(guest.Try(Flush, slow, FlushOf(other)), Is.Zero);
        });
        Assert.That(guest.TryAttributes(full), Is.Zero, "it serves on");
    }

    // For Linux a short answer is the end of the file, or zeros. With an error for all it reads the pages one by one.
    [Test]
    public void Read_WithAnErrorBehindItsFirstBytes_IsThatError()
    {
        const int half = 64 * 1024;
        FuseGuest guest = Begin();
        ulong node = guest.Node("broken");
        long handle = guest.Open(node, flags: 0);
        byte[] ReadOf(ulong offset, uint size) => [.. Bytes((ulong)handle, offset), .. Bytes(size, 0U), .. Bytes(0UL), .. Bytes(0U, 0U)];
        Assert.That(guest.Try(Read, node, ReadOf(0, 2 * half), 2 * half), Is.EqualTo(-Eio));
        Assert.That(guest.Demand(Read, node, ReadOf(0, half), half), Has.Length.EqualTo(half), "what can be read");
        Assert.That(guest.Try(Read, node, ReadOf(half, 4096), 4096), Is.EqualTo(-Eio));
    }

    [Test]
    public void Write_ThatIsNotAnswered_HoldsUpNothingElse()
    {
        FuseGuest guest = Begin();
        ulong node = guest.Node("slow");
        long handle = guest.Open(node);
        var late = new PendingRequest(guest, Write, node, [.. Bytes((ulong)handle, 0UL), .. Bytes(4U, 0U), .. Bytes(0UL), .. Bytes(0U, 0U), .. "text"u8], 8);
        AssertOthersGoOn(guest, late);
    }

    [Test]
    public void Lookup_ThatIsNotAnswered_HoldsUpNothingElse()
    {
        FuseGuest guest = Begin();
        AssertOthersGoOn(guest, new PendingRequest(guest, Lookup, FuseGuest.Root, Name("hidden"), FuseGuest.EntrySize));
    }

    // The daemon does not know the new name yet: it learns it from the host, which takes its time.
    [Test]
    public void Rename_ThatIsNotDoneYet_LosesNothing()
    {
        FuseGuest guest = Begin();
        ulong node = guest.Node("old");
        var rename = new PendingRequest(guest, Rename, FuseGuest.Root, [.. Bytes(FuseGuest.Root), .. Name("old"), .. Name("new")]);
        Eventually.True(() => !File.Exists(In("old")), () => "it is not renamed");
        Assert.That(guest.TryAttributes(node), Is.Zero, "by the other queue");
        Assert.That(rename.HasEnded, Is.False);
        Assert.That(rename.Await(), Is.Zero);
        Assert.That(guest.TryAttributes(node), Is.Zero);
    }

    // NFS would rename it to .nfs… as long as a descriptor leads to it, and its directory could not be removed.
    [TestCase(false)]
    [TestCase(true)]
    public void Removed_WithoutBeingOpen_HasNoDescriptorLeft(bool isRenamedOver)
    {
        VmmProcess process = Serve();
        using var guest = new FuseGuest(SocketPath);
        ulong closed = guest.Node("full"), open = guest.Node("slow");
        guest.Node("old");
        Assert.That(guest.TryAttributes(closed), Is.Zero);
        ulong handle = (ulong)guest.Open(open);
        Assert.That(Remove("full"), Is.Zero);
        Assert.That(DescriptorsOf(process, "full"), Is.Empty);
        Assert.That(guest.TryAttributes(closed), Is.EqualTo(-116), "ESTALE");
        if (isRenamedOver)
            return;
        Assert.That(Remove("slow"), Is.Zero);
        Assert.That(guest.TryAttributes(open), Is.Zero, "what is open goes on");
        guest.Fuse.Release(open, handle);

        int Remove(string name) => isRenamedOver ? guest.Rename(FuseGuest.Root, "old", FuseGuest.Root, name) : guest.Unlink(FuseGuest.Root, name);
    }

    private static void AssertOthersGoOn(FuseGuest guest, PendingRequest late)
    {
        // On the same queue.
        Assert.That(new PendingRequest(guest, GetAttributes, FuseGuest.Root, Bytes(0UL, 0UL), FuseGuest.AttributesSize).Await(), Is.Zero);
        Assert.That(late.HasEnded, Is.False);
        Assert.That(late.Await(), Is.Zero);
    }

    private static byte[] FlushOf(long handle) => [.. Bytes((ulong)handle), .. Bytes(0U, 0U), .. Bytes(1UL)];
}
