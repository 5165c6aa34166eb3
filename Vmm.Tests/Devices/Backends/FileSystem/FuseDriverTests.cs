using System.Runtime.InteropServices;
using NUnit.Framework;
using Vmm.Devices.Backends.FileSystem;
using static Vmm.Tests.Conformance.FuseClient;

namespace Vmm.Tests.Devices.Backends.FileSystem;

/// <summary>Requests as Linux does not send them, but other drivers may; in this process.</summary>
public sealed class FuseDriverTests
{
    private const int Eperm = 1, Noent = 2, Interrupted = 4, Ebadf = 9, Enotdir = 20, Invalid = 22, Rofs = 30, Enosys = 38, Nodata = 61, Stale = 116;

    // FUSE_* of linux/fuse.h.
    private const uint LookupCode = 1, ForgetCode = 2, GetAttributesCode = 3, SetAttributesCode = 4, SymbolicLinkCode = 6, MakeNodeCode = 8, MakeDirectoryCode = 9, UnlinkCode = 10,
        RemoveDirectoryCode = 11, RenameCode = 12, LinkCode = 13, OpenCode = 14, ReadCode = 15, WriteCode = 16, ReleaseCode = 18, FsyncCode = 20, SetXattrCode = 21, GetXattrCode = 22,
        RemoveXattrCode = 24, FlushCode = 25, OpenDirectoryCode = 27, ReadDirectoryCode = 28, ReleaseDirectoryCode = 29, GetLockCode = 31, SetLockCode = 32, SetLockWaitCode = 33, AccessCode = 34,
        CreateCode = 35, InterruptCode = 36, IoctlCode = 39, BatchForgetCode = 42, AllocateCode = 43, Rename2Code = 45, SeekCode = 46, ReadDirectoryPlusCode = 44, CopyCode = 47, SetupMappingCode = 48, SyncFsCode = 50,
        TemporaryFileCode = 51;

    private const uint SetFlags = 0x40086602;       // FS_IOC_SETFLAGS
    private const int EntrySize = FuseGuest.EntrySize, AttributesSize = FuseGuest.AttributesSize;

    private string _shared = "";
    private FakeDaxFrontEnd? _frontEnd;
    private FuseServer _server = null!;
    private RequestPool _pool = null!;
    private FuseDevice _device = null!;
    private DeviceRing _ring = null!;
    private ulong _unique;

    [SetUp]
    public void MakeShared()
    {
        _shared = Directory.CreateTempSubdirectory("vmm-test-").FullName;
        File.WriteAllText(In("file"), "some text");
        _unique = 100;
    }

    [TearDown]
    public void RemoveAll()
    {
        _ring.Dispose();
        _device.Dispose();
        _pool.Dispose();
        _server.Dispose();
        _frontEnd?.Dispose();
        _frontEnd = null;
        Directory.Delete(_shared, recursive: true);
    }

    [Test]
    public void Forget_OfAnOpenFile_LeavesItToItsHandle()
    {
        Begin();
        ulong node = Node("file"), handle = Open(node), second = Open(node);
        Assert.That(Try(SetLockCode, node, FuseGuest.LockArguments(handle, 1, 1)), Is.Zero);
        Tell(ForgetCode, node, Bytes(1UL));

        Assert.That(Try(GetAttributesCode, node, Bytes(0UL, 0UL), AttributesSize), Is.EqualTo(-Stale), "its number alone says nothing any more");
        Assert.Multiple(() =>
        {
            Assert.That(Demand(ReadCode, node, Transfer(handle, 4), 4), Is.EqualTo("some"u8.ToArray()), "read");
            Assert.That(Try(WriteCode, node, [.. Transfer(handle, 4), .. "SOME"u8], 8), Is.Zero, "write");
            Assert.That(Try(FsyncCode, node, [.. Bytes(handle), .. Bytes(0U, 0U)]), Is.Zero, "fsync");
            Assert.That(Try(AllocateCode, node, [.. Bytes(handle, 0UL, 20UL), .. Bytes(0U, 0U)]), Is.Zero, "fallocate");
            Assert.That(Try(SeekCode, node, [.. Bytes(handle, 0UL), .. Bytes(3U, 0U)], 8), Is.Zero, "lseek");
            Assert.That(Try(GetAttributesCode, node, [.. Bytes(1U, 0U), .. Bytes(handle)], AttributesSize), Is.Zero, "getattr");
            Assert.That(Try(SetAttributesCode, node, SetAttributes(valid: 8 | 64, handle, size: 5), AttributesSize), Is.Zero, "setattr");
            Assert.That(Try(IoctlCode, node, Ioctl(handle, 0x80086601, 4), 24), Is.Zero.Or.EqualTo(-25), "ioctl, where the file system has such flags");
            Assert.That(Try(CopyCode, node, Bytes(handle, 0UL, node, second, 0UL, 0UL, 0UL), 8), Is.Zero, "copy_file_range");
            Assert.That(Try(SetLockWaitCode, node, FuseGuest.LockArguments(second, 1, 0)), Is.Zero, "a lock");
            Assert.That(Try(GetLockCode, node, FuseGuest.LockArguments(second, 2, 1), 24), Is.Zero, "getlk");
        });
        Assert.That(U32(Demand(GetLockCode, node, FuseGuest.LockArguments(second, 2, 1), 24), 16), Is.Zero, "who has it for reading has it still");
        ulong again = Node("file");
        Assert.That(again, Is.Not.EqualTo(node), "a number that was forgotten is not given out again");
        Assert.That(Try(ReadCode, again, Transfer(handle, 4), 4), Is.EqualTo(-Ebadf), "the handle is of the other number");
        Tell(ForgetCode, again, Bytes(1UL));
        Assert.That(Try(ReadCode, node + 1, Transfer(handle, 4), 4), Is.EqualTo(-Stale), "of another file");
        Assert.That(Try(FlushCode, node, [.. Bytes(handle), .. Bytes(0U, 0U), .. Bytes(1UL)]), Is.Zero, "flush");
        Assert.That(Try(ReleaseCode, node, Release(handle)), Is.Zero);
        Assert.That(Try(ReleaseCode, node, Release(second)), Is.Zero);
        Assert.That(Try(ReadCode, node, Transfer(handle, 4), 4), Is.EqualTo(-Stale));
        Assert.That(File.ReadAllText(In("file")), Is.EqualTo("SOME "));
        Assert.That((_server.Count, _server.CountKept()), Is.EqualTo(((1, 0, 0), 0)), "nothing is left");
    }

    [Test]
    public void Forget_OfAnOpenFileThatWasRemoved_LeavesItToItsHandle()
    {
        Begin();
        ulong node = Node("file"), handle = Open(node);
        Assert.That(Try(UnlinkCode, FuseGuest.Root, Name("file")), Is.Zero);
        Tell(ForgetCode, node, Bytes(1UL));
        Assert.That(Demand(ReadCode, node, Transfer(handle, 4), 4), Is.EqualTo("some"u8.ToArray()));
        Assert.That(U64(Demand(SetAttributesCode, node, SetAttributes(valid: 8 | 64, handle, size: 3), AttributesSize), 24), Is.EqualTo(3));
        File.WriteAllText(In("file"), "another");
        Assert.That(Node("file"), Is.Not.EqualTo(node));
        Assert.That(Try(ReleaseCode, node, Release(handle)), Is.Zero);
        Assert.That((_server.Count.Handles, _server.CountKept()), Is.EqualTo((0, 0)));
    }

    [Test]
    public void Forget_OfAnOpenDirectory_LeavesItToItsHandle()
    {
        Directory.CreateDirectory(In("directory/inner"));
        Begin();
        ulong node = Node("directory"), handle = U64(Demand(OpenDirectoryCode, node, Bytes(0U, 0U), 16), 0);
        Tell(ForgetCode, node, Bytes(1UL));
        Assert.That(Demand(ReadDirectoryCode, node, Transfer(handle, 4096), 4096), Is.Not.Empty);
        Assert.That(U64(Demand(ReadDirectoryPlusCode, node, Transfer(handle, 4096), 4096), 0), Is.Zero, "no file is told of that could not be found");
        Assert.That(Try(ReleaseDirectoryCode, node, Release(handle)), Is.Zero);
        Assert.That((_server.Count, _server.CountKept()), Is.EqualTo(((1, 0, 0), 0)), "nothing is left");
    }

    [Test]
    public void Release_OfAnotherFile_IsRefusedAndEndsNothing()
    {
        File.WriteAllText(In("other"), "");
        Begin();
        ulong node = Node("file"), other = Node("other"), handle = Open(node);
        Assert.That(Try(ReleaseCode, other, Release(handle)), Is.EqualTo(-Ebadf));
        Assert.That(Demand(ReadCode, node, Transfer(handle, 4), 4), Is.EqualTo("some"u8.ToArray()));
    }

    [Test]
    public void Request_UnknownOfAnUnknownFile_IsNotImplemented()
    {
        Begin();
        foreach (uint code in new uint[] { 0, 7, 37, 41, 53, 4096, uint.MaxValue })
            Assert.That(Try(code, 12345, []), Is.EqualTo(-Enosys), $"request {code}");
    }

    [Test]
    public void Lookup_OfTheDirectoryItselfAndTheOneAbove_IsWhatTheTableKnows()
    {
        Directory.CreateDirectory(In("a/b"));
        Begin();
        ulong a = Node("a"), b = Node("a/b"), file = Node("file");
        Assert.Multiple(() =>
        {
            Assert.That(U64(Demand(LookupCode, b, Name("."), EntrySize), 0), Is.EqualTo(b));
            Assert.That(U64(Demand(LookupCode, b, Name(".."), EntrySize), 0), Is.EqualTo(a));
            Assert.That(U64(Demand(LookupCode, a, Name(".."), EntrySize), 0), Is.EqualTo(FuseGuest.Root));
            Assert.That(U64(Demand(LookupCode, FuseGuest.Root, Name("."), EntrySize), 0), Is.EqualTo(FuseGuest.Root));
            byte[] entry = Demand(LookupCode, FuseGuest.Root, Name(".."), EntrySize);
            Assert.That((U64(entry, 0), U32(entry, 40 + 60) & 0xF000), Is.EqualTo((FuseGuest.Root, 0x4000U)), "what is above the shared directory is none of the guest's business");
            Assert.That(Try(LookupCode, file, Name("."), EntrySize), Is.EqualTo(-Enotdir));
            Assert.That(Try(LookupCode, file, Name(".."), EntrySize), Is.EqualTo(-Enotdir));
        });
        // Each of them counts: "a" once by its name in each of two look-ups, and once from below.
        Tell(ForgetCode, a, Bytes(2UL));
        Assert.That(Try(GetAttributesCode, a, Bytes(0UL, 0UL), AttributesSize), Is.Zero);
        Tell(ForgetCode, a, Bytes(1UL));
        Assert.That(Try(GetAttributesCode, a, Bytes(0UL, 0UL), AttributesSize), Is.EqualTo(-Stale));
        // The guest has forgotten it, and knows it again.
        Assert.That(U64(Demand(LookupCode, b, Name(".."), EntrySize), 0), Is.EqualTo(a));
        Assert.That(Try(GetAttributesCode, a, Bytes(0UL, 0UL), AttributesSize), Is.Zero);
        Assert.That(Try(RemoveDirectoryCode, a, Name("b")), Is.Zero);
        Tell(BatchForgetCode, 0, [.. Bytes(3U, 0U), .. Bytes(a, 1UL), .. Bytes(b, 2UL), .. Bytes(file, 1UL)]);
        Assert.That((_server.Count, _server.CountKept()), Is.EqualTo(((1, 0, 0), 0)), "nothing is left");
    }

    // Each request that changes something, as one that could be done otherwise.
    [Test]
    public void ReadOnly_WhatChangesAnything_IsRefused()
    {
        Directory.CreateDirectory(In("directory"));
        Begin(new FileSystemOptions { Directory = _shared, PoolSize = 0, IsReadOnly = true, DaxWindow = 2 << 20 });
        ulong node = Node("file"), directory = Node("directory"), handle = Open(node, flags: 0), root = FuseGuest.Root;
        Assert.Multiple(() =>
        {
            Refused("chmod", SetAttributesCode, node, SetAttributes(valid: 1, 0, 0), AttributesSize);
            Refused("truncate", SetAttributesCode, node, SetAttributes(valid: 8, 0, 0), AttributesSize);
            Refused("ftruncate", SetAttributesCode, node, SetAttributes(valid: 8 | 64, handle, 0), AttributesSize);
            Refused("symlink", SymbolicLinkCode, root, [.. Name("new"), .. Name("target")], EntrySize);
            Refused("mknod", MakeNodeCode, root, [.. Bytes(0x81A4U, 0U, 0U, 0U), .. Name("new")], EntrySize);
            Refused("mkdir", MakeDirectoryCode, root, [.. Bytes(0x1EDU, 0U), .. Name("new")], EntrySize);
            Refused("unlink", UnlinkCode, root, Name("file"));
            Refused("rmdir", RemoveDirectoryCode, root, Name("directory"));
            Refused("rename", RenameCode, root, [.. Bytes(root), .. Name("file"), .. Name("new")]);
            Refused("renameat2", Rename2Code, root, [.. Bytes(root), .. Bytes(1U, 0U), .. Name("file"), .. Name("new")]);
            Refused("link", LinkCode, root, [.. Bytes(node), .. Name("new")], EntrySize);
            foreach (uint flags in (uint[])[1, 2, 0x200, 0x201, 0x202])
                Refused($"open with {flags:x}", OpenCode, node, Bytes(flags, 0U), 16);
            foreach (uint flags in (uint[])[0x40, 0x41, 0x42, 0xC2])
                Refused($"creat with {flags:x}", CreateCode, root, [.. Bytes(flags, 0x81A4U, 0U, 0U), .. Name("new")], EntrySize + 16);
            Refused("creat of what is there", CreateCode, root, [.. Bytes(0x241U, 0x81A4U, 0U, 0U), .. Name("file")], EntrySize + 16);
            Refused("a temporary file", TemporaryFileCode, root, [.. Bytes(0x410002U, 0x81A4U, 0U, 0U), .. Name("/")], EntrySize + 16);
            Refused("write", WriteCode, node, [.. Transfer(handle, 1), 1], 8);
            Refused("fallocate", AllocateCode, node, [.. Bytes(handle, 0UL, 20UL), .. Bytes(0U, 0U)]);
            Refused("copy_file_range", CopyCode, node, Bytes(handle, 0UL, node, handle, 5UL, 1UL, 0UL), 8);
            Refused("setxattr", SetXattrCode, node, [.. Bytes(1U, 0U), .. Name("user.x"), 1]);
            Refused("removexattr", RemoveXattrCode, node, Name("user.x"));
            Refused("chattr", IoctlCode, node, [.. Ioctl(handle, SetFlags, 0), .. Bytes(0U)], 16);
            Refused("access", AccessCode, node, Bytes(2U, 0U));
            Refused("access for all", AccessCode, directory, Bytes(7U, 0U));
            Refused("a mapping to write to", SetupMappingCode, node, Bytes(ulong.MaxValue, 0UL, 4096UL, 1UL, 0UL));
            Assert.That(Try(AccessCode, node, Bytes(4U, 0U)), Is.Zero, "access for reading");
            Assert.That(Try(FsyncCode, node, [.. Bytes(handle), .. Bytes(0U, 0U)]), Is.Zero, "fsync");
        });
        Assert.That(Directory.GetFileSystemEntries(_shared).Select(Path.GetFileName), Is.EquivalentTo(new[] { "file", "directory" }));
        Assert.That(File.ReadAllText(In("file")), Is.EqualTo("some text"));

        void Refused(string what, uint code, ulong about, byte[] arguments, int room = 0) => Assert.That(Try(code, about, arguments, room), Is.EqualTo(-Rofs), what);
    }

    // VIRTIO 1.2 §2.6.4.1: a device must not depend on how the driver cuts its buffers.
    [Test]
    public void Reply_CutIntoBytes_IsWritten()
    {
        Begin();
        ulong node = Node("file"), handle = Open(node);
        int[] bytes = [.. Enumerable.Repeat(1, 40)];
        Assert.Multiple(() =>
        {
            Done("fsync", FsyncCode, [.. Bytes(handle), .. Bytes(0U, 0U)]);
            Done("fallocate", AllocateCode, [.. Bytes(handle, 0UL, 20UL), .. Bytes(0U, 0U)]);
            Done("copy_file_range", CopyCode, Bytes(handle, 0UL, node, handle, 10UL, 4UL, 0UL));
            Done("setlkw", SetLockWaitCode, FuseGuest.LockArguments(handle, 1, 1));
            Done("syncfs", SyncFsCode, Bytes(0UL));
            Done("flush", FlushCode, [.. Bytes(handle), .. Bytes(0U, 0U), .. Bytes(1UL)]);
        });
        Assert.That(File.ReadAllText(In("file"))[10..14], Is.EqualTo("some"));

        void Done(string what, uint code, byte[] arguments)
        {
            _ring.Add(Request(code, node, arguments), [40], bytes);
            Assert.That(MemoryMarshal.Read<int>(_ring.Await().AsSpan(4)), Is.Zero, what);
        }
    }

    [Test]
    public void Interrupt_ThatComesFirst_EndsTheWaitForALock()
    {
        Begin();
        ulong node = Node("file"), handle = Open(node);
        Assert.That(Try(SetLockCode, node, FuseGuest.LockArguments(handle, 1, 1)), Is.Zero);
        byte[] waits = Request(SetLockWaitCode, node, FuseGuest.LockArguments(handle, 2, 1));
        ulong number = BitConverter.ToUInt64(waits, 8);
        Interrupt(number);
        for (ulong i = 0; i < 63; i++)
            Interrupt(5000 + i);
        _ring.Add(waits, [40], 16);
        Assert.That(MemoryMarshal.Read<int>(_ring.Await().AsSpan(4)), Is.EqualTo(-Interrupted));
        // It counts once, and for one session; and so many are remembered, for a short time.
        Waits(waits);
        Interrupt(number);
        Thread.Sleep(2100);
        Waits(waits);
        Interrupt(number);
        for (ulong i = 0; i < 64; i++)
            Interrupt(6000 + i);
        Waits(waits);
        Interrupt(number);
        Initialize();
        node = Node("file");
        handle = Open(node);
        Assert.That(Try(SetLockCode, node, FuseGuest.LockArguments(handle, 1, 1)), Is.Zero);
        Waits(Request(SetLockWaitCode, node, FuseGuest.LockArguments(handle, 2, 1), number));

        void Interrupt(ulong unique) => Tell(InterruptCode, 0, Bytes(unique));

        // Until the lock is given up.
        void Waits(byte[] request)
        {
            _ring.Add(request, [40], 16);
            _ring.Process();
            Assert.That(_ring.Take(), Is.Null, "it waits");
            _ring.Add(Request(SetLockCode, node, FuseGuest.LockArguments(handle, 1, 2)), [40], 16);
            for (int i = 0; i < 2; i++)
                Assert.That(MemoryMarshal.Read<int>(_ring.Await().AsSpan(4)), Is.Zero, "both have what they want");
            Assert.That(Try(SetLockCode, node, FuseGuest.LockArguments(handle, 2, 2)), Is.Zero);
            Assert.That(Try(SetLockCode, node, FuseGuest.LockArguments(handle, 1, 1)), Is.Zero);
        }
    }

    [TestCase(10_000)]
    [TestCase(65_536)]
    public void BatchForget_OfVeryMany_ForgetsAll(int count)
    {
        Begin();
        ulong node = Node("file");
        byte[] arguments = new byte[8 + 16 * count];
        MemoryMarshal.Write(arguments, (uint)count);
        Span<ulong> numbers = MemoryMarshal.Cast<byte, ulong>(arguments.AsSpan(8));
        for (int i = 0; i < count; i++)
            (numbers[2 * i], numbers[2 * i + 1]) = (1000 + (ulong)i, 1);
        numbers[2 * (count - 1)] = node;
        // Cut in the middle of an entry.
        _ring.AddData(Request(BatchForgetCode, 0, arguments), 40, 8, 16 * 1000 + 3);
        Assert.That(_ring.Await(), Is.Empty);
        Assert.That(_server.Count, Is.EqualTo((1, 0, 0)), "files, descriptors and openings");
    }

    [Test]
    public void SetAttributes_ByAHandleThatIsNone_ChangesNothing()
    {
        Begin();
        ulong node = Node("file"), handle = Open(node);
        Assert.That(Try(SetAttributesCode, node, SetAttributes(valid: 8 | 64, handle + 1, size: 0), AttributesSize), Is.EqualTo(-Ebadf));
        Assert.That(File.ReadAllText(In("file")), Is.EqualTo("some text"));
    }

    // What was done could not be told.
    [Test]
    public void Reply_WithoutRoom_NothingIsDone()
    {
        Begin();
        ulong node = Node("file"), handle = Open(node), root = FuseGuest.Root;
        Assert.Multiple(() =>
        {
            Refused("mkdir", MakeDirectoryCode, root, [.. Bytes(0x1EDU, 0U), .. Name("new")], EntrySize);
            Refused("mknod", MakeNodeCode, root, [.. Bytes(0x81A4U, 0U, 0U, 0U), .. Name("new")], EntrySize);
            Refused("symlink", SymbolicLinkCode, root, [.. Name("new"), .. Name("target")], EntrySize);
            Refused("link", LinkCode, root, [.. Bytes(node), .. Name("new")], EntrySize);
            Refused("creat", CreateCode, root, [.. Bytes(0x42U, 0x81A4U, 0U, 0U), .. Name("new")], EntrySize + 16);
            Refused("a temporary file", TemporaryFileCode, root, [.. Bytes(0x410002U, 0x81A4U, 0U, 0U), .. Name("/")], EntrySize + 16);
            Refused("truncate", SetAttributesCode, node, SetAttributes(valid: 8, 0, 0), AttributesSize);
            Refused("write", WriteCode, node, [.. Transfer(handle, 1), 1], 8);
            Refused("copy_file_range", CopyCode, node, Bytes(handle, 0UL, node, handle, 10UL, 4UL, 0UL), 8);
            Refused("chattr", IoctlCode, node, [.. Ioctl(handle, SetFlags, 0), .. Bytes(0x80U)], 16);
            Refused("open", OpenCode, node, Bytes(0x202U, 0U), 16);
            Refused("opendir", OpenDirectoryCode, root, Bytes(0U, 0U), 16);
            Refused("lookup", LookupCode, root, Name("file"), EntrySize);
        });
        Assert.That(Directory.GetFileSystemEntries(_shared), Has.Length.EqualTo(1));
        Assert.That(File.ReadAllText(In("file")), Is.EqualTo("some text"));
        Assert.That((_server.Count.Files, _server.Count.Handles), Is.EqualTo((2, 1)));

        void Refused(string what, uint code, ulong about, byte[] arguments, int room) => Assert.That(Try(code, about, arguments, room - 1), Is.EqualTo(-Invalid), what);
    }

    [TestCase(true, false)]
    [TestCase(false, true)]
    [TestCase(false, false)]
    public void Locks_OfOneKind_AreOffered(bool hasRanges, bool hasFlocks)
    {
        ulong flags = Begin(new FileSystemOptions { Directory = _shared, PoolSize = 0, PosixLocks = hasRanges, FlockLocks = hasFlocks });
        ulong node = Node("file"), handle = Open(node);
        Assert.That(((flags & (ulong)FuseFlags.PosixLocks) != 0, (flags & (ulong)FuseFlags.FlockLocks) != 0), Is.EqualTo((hasRanges, hasFlocks)));
        foreach (uint code in (uint[])[SetLockCode, SetLockWaitCode])
        {
            Assert.That(Try(code, node, FuseGuest.LockArguments(handle, 1, 1)), Is.EqualTo(hasRanges ? 0 : -Enosys));
            Assert.That(Try(code, node, FuseGuest.LockArguments(handle, 1, 1, isFlock: true)), Is.EqualTo(hasFlocks ? 0 : -Enosys));
        }
        Assert.That(Try(GetLockCode, node, FuseGuest.LockArguments(handle, 1, 1), 24), Is.EqualTo(hasRanges ? 0 : -Enosys));
    }

    // As QEMU's virtiofsd answers.
    [Test]
    public void Xattr_WithoutARule_IsForbidden()
    {
        Begin(new FileSystemOptions { Directory = _shared, PoolSize = 0, XattrMap = XattrMap.Parse(":prefix:all:trusted.:user.virtiofs.:") });
        ulong node = Node("file");
        Assert.That(Try(SetXattrCode, node, [.. Bytes(1U, 0U), .. Name("user.x"), 1]), Is.EqualTo(-Eperm));
        Assert.That(Try(RemoveXattrCode, node, Name("user.x")), Is.EqualTo(-Eperm));
        Assert.That(Try(GetXattrCode, node, [.. Bytes(0U, 0U), .. Name("user.x")], 8), Is.EqualTo(-Nodata));
    }

    private static byte[] Transfer(ulong handle, uint size) => [.. Bytes(handle, 0UL), .. Bytes(size, 0U), .. Bytes(0UL), .. Bytes(0U, 0U)];

    private static byte[] Release(ulong handle) => [.. Bytes(handle), .. Bytes(0U, 0U), .. Bytes(0UL)];

    private static byte[] Ioctl(ulong handle, uint command, uint outSize) => [.. Bytes(handle), .. Bytes(0U, command), .. Bytes(0UL), .. Bytes(4U, outSize)];

    private static byte[] SetAttributes(uint valid, ulong handle, ulong size) => [.. Bytes(valid, 0U), .. Bytes(handle, size), .. new byte[64]];

    private string In(string name) => Path.Combine(_shared, name);

    // Returns what was agreed on.
    private ulong Begin(FileSystemOptions? options = null)
    {
        options ??= new FileSystemOptions { Directory = _shared, PoolSize = 0 };
        if (options.DaxWindow > 0)
            _frontEnd = new FakeDaxFrontEnd(options.DaxWindow);
        _server = new FuseServer(options) { FrontEnd = () => _frontEnd?.Channel };
        _pool = new RequestPool(_server, 0);
        _device = new FuseDevice(_server, _pool);
        _ring = new DeviceRing(_device, 0);
        return Initialize();
    }

    private ulong Initialize()
    {
        // Without what would make arguments longer.
        ulong wanted = FuseGuest.AllFlags & ~((ulong)FuseFlags.SetXattrExtension | (ulong)FuseFlags.SecurityContext);
        byte[] init = Demand(26, 0, [.. Bytes(7U, 39U, 0U, (uint)wanted, (uint)(wanted >> 32)), .. new byte[44]], 64);
        return U32(init, 12) | (ulong)U32(init, 32) << 32;
    }

    private ulong Node(string path)
    {
        ulong node = FuseGuest.Root;
        foreach (string name in path.Split('/'))
            node = U64(Demand(LookupCode, node, Name(name), EntrySize), 0);
        return node;
    }

    private ulong Open(ulong node, uint flags = 2) => U64(Demand(OpenCode, node, Bytes(flags, 0U), 16), 0);

    private byte[] Demand(uint code, ulong node, byte[] arguments, int room)
    {
        Assert.That(Try(code, node, arguments, room, out byte[] reply), Is.Zero, $"request {code} of node {node}");
        return reply;
    }

    private int Try(uint code, ulong node, byte[] arguments, int room = 0) => Try(code, node, arguments, room, out _);

    private int Try(uint code, ulong node, byte[] arguments, int room, out byte[] reply)
    {
        _ring.Add(Request(code, node, arguments), [40], 16 + room);
        byte[] all = _ring.Await();
        reply = all[16..];
        return MemoryMarshal.Read<int>(all.AsSpan(4));
    }

    private void Tell(uint code, ulong node, byte[] arguments)
    {
        _ring.AddData(Request(code, node, arguments), 40);
        Assert.That(_ring.Await(), Is.Empty);
    }

    private byte[] Request(uint code, ulong node, byte[] arguments, ulong? unique = null)
    {
        byte[] request = FuseDevice.Request(code, node, arguments);
        MemoryMarshal.Write(request.AsSpan(8), unique ?? _unique++);
        return request;
    }
}
