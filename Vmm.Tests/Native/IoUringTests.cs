using System.Reflection;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.RegularExpressions;
using NUnit.Framework;
using Vmm.Tests.Boot;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Native;

public partial class IoUringTests
{
    // Members of unions, by the names they have in C.
    private static readonly (Type Type, string Name, string[] Renamed)[] s_structures =
    [
        (typeof(IoUringSqe), "io_uring_sqe", ["Addr3=addr3", "Pad2=__pad2"]),
        (typeof(IoUringCqe), "io_uring_cqe", []),
        (typeof(IoUringRestriction), "io_uring_restriction", ["Resv2=resv2[0]", "Resv3=resv2[1]"]),
        (typeof(IoSqringOffsets), "io_sqring_offsets", ["Resv1=", "Resv2="]),
        (typeof(IoCqringOffsets), "io_cqring_offsets", ["Resv1=", "Resv2="]),
        (typeof(IoUringParams), "io_uring_params", ["Resv0=resv[0]", "Resv1=resv[1]", "Resv2=resv[2]"]),
    ];

    private static readonly (string Name, ulong Value)[] s_constants =
    [
        ("SYS_io_uring_setup", IoUringAbi.SetupCall),
        ("SYS_io_uring_enter", IoUringAbi.EnterCall),
        ("SYS_io_uring_register", IoUringAbi.RegisterCall),
        ("IORING_SETUP_R_DISABLED", IoUringAbi.SetupDisabled),
        ("IORING_SETUP_SUBMIT_ALL", IoUringAbi.SetupSubmitAll),
        ("IORING_SETUP_COOP_TASKRUN", IoUringAbi.SetupCoopTaskrun),
        ("IORING_SETUP_TASKRUN_FLAG", IoUringAbi.SetupTaskrunFlag),
        ("IORING_SETUP_CQSIZE", IoUringAbi.SetupCqSize),
        ("IORING_FEAT_SINGLE_MMAP", IoUringAbi.FeatureSingleMmap),
        ("IORING_FEAT_NODROP", IoUringAbi.FeatureNoDrop),
        ("IORING_OFF_SQ_RING", IoUringAbi.OffsetSqRing),
        ("IORING_OFF_SQES", IoUringAbi.OffsetSqes),
        ("IORING_ENTER_GETEVENTS", IoUringAbi.EnterGetEvents),
        ("IORING_SQ_CQ_OVERFLOW", IoUringAbi.SqCqOverflow),
        ("IORING_SQ_TASKRUN", IoUringAbi.SqTaskrun),
        ("IORING_CQ_EVENTFD_DISABLED", IoUringAbi.CqEventFdDisabled),
        ("IORING_REGISTER_FILES", IoUringAbi.RegisterFiles),
        ("IORING_REGISTER_EVENTFD", IoUringAbi.RegisterEventFd),
        ("IORING_REGISTER_RESTRICTIONS", IoUringAbi.RegisterRestrictions),
        ("IORING_REGISTER_ENABLE_RINGS", IoUringAbi.RegisterEnableRings),
        ("IORING_RESTRICTION_SQE_OP", IoUringAbi.RestrictionSqeOp),
        ("IORING_RESTRICTION_SQE_FLAGS_ALLOWED", IoUringAbi.RestrictionSqeFlagsAllowed),
        ("IORING_RESTRICTION_SQE_FLAGS_REQUIRED", IoUringAbi.RestrictionSqeFlagsRequired),
        ("IOSQE_FIXED_FILE", IoUringAbi.SqeFixedFile),
        ("IORING_FSYNC_DATASYNC", IoUringAbi.FsyncDataSync),
        ("IORING_OP_READV", (ulong)IoUringOperation.ReadV),
        ("IORING_OP_WRITEV", (ulong)IoUringOperation.WriteV),
        ("IORING_OP_FSYNC", (ulong)IoUringOperation.Fsync),
        ("IORING_OP_FALLOCATE", (ulong)IoUringOperation.Fallocate),
        ("IORING_OP_READ", (ulong)IoUringOperation.Read),
        ("IORING_OP_WRITE", (ulong)IoUringOperation.Write),
        ("(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)", (ulong)AllocateMode.PunchHole),
        ("(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE)", (ulong)AllocateMode.ZeroRange),
        ("sizeof(struct iovec)", (ulong)Unsafe.SizeOf<IoVector>()),
        ("offsetof(struct iovec, iov_len)", 8),
    ];

    private TempFile _file = null!;
    private FileDescriptor _descriptor = null!;
    private EventFd _ready = null!;
    private NativeBuffer _memory = null!;

    [SetUp]
    public void Open()
    {
        _file = new TempFile(Enumerable.Range(0, 16384).Select(i => (byte)(i / 4096 + 1)).ToArray());
        _descriptor = FileDescriptor.Open(_file.Path, OpenMode.ReadWrite);
        _ready = new EventFd();
        _memory = new NativeBuffer(65536);
    }

    [TearDown]
    public void Close()
    {
        _memory.Dispose();
        _ready.Dispose();
        _descriptor.Dispose();
        _file.Dispose();
    }

    [Test]
    public void Declarations_AgainstKernelHeaders_AreTheSame()
    {
        var c = new StringBuilder(
            "#define _GNU_SOURCE\n#include <stddef.h>\n#include <fcntl.h>\n#include <linux/falloc.h>\n#include <linux/io_uring.h>\n#include <sys/syscall.h>\n#include <sys/uio.h>\n");
        foreach ((string name, ulong value) in s_constants)
            c.Append($"_Static_assert({name} == {value}ull, \"{name}\");\n");
        int fields = 0;
        foreach ((Type type, string name, string[] renamed) in s_structures)
        {
            c.Append($"_Static_assert(sizeof(struct {name}) == {Marshal.SizeOf(type)}, \"{name}\");\n");
            foreach (FieldInfo field in type.GetFields(BindingFlags.Instance | BindingFlags.Public))
            {
                string cName = renamed.FirstOrDefault(pair => pair.StartsWith(field.Name + "=", StringComparison.Ordinal))?.Split('=')[1]
                    ?? WordStart().Replace(field.Name, "_$1").ToLowerInvariant();
                if (cName.Length == 0)
                    continue;
                c.Append($"_Static_assert(offsetof(struct {name}, {cName}) == {Marshal.OffsetOf(type, field.Name)}, \"{name}.{cName}\");\n");
                fields++;
            }
        }
        CCompiler.Check(c.ToString());
        Assert.That(fields, Is.GreaterThan(40));
    }

    [Test]
    public void Read_OneVectorAndSeveral_FillMemory()
    {
        using IoUring ring = Ring();
        Span<IoVector> vectors = Vectors;
        vectors[0] = new IoVector(Data(0), 4096);
        vectors[1] = new IoVector(Data(8192), 100);
        vectors[2] = new IoVector(Data(12288), 4096);
        ring.Read(vectors[..1], 4096, 17);
        ring.Read(vectors[1..3], 8192, 18);
        ring.Push();
        Assert.That(TakeAll(ring, 2), Is.EquivalentTo([(17UL, 4096), (18UL, 4196)]));
        Assert.That(Bytes(0, 4096), Is.All.EqualTo(2));
        Assert.That(Bytes(8192, 100), Is.All.EqualTo(3));
        Assert.That(Bytes(12288, 3996), Is.All.EqualTo(3));
        Assert.That(Bytes(12288 + 3996, 100), Is.All.EqualTo(4));
    }

    [Test]
    public void WriteSyncAndAllocate_AreDone()
    {
        using IoUring ring = Ring();
        _memory.AsSpan<byte>().Slice(4096, 4096).Fill(9);
        Vectors[0] = new IoVector(Data(0), 4096);
        ring.Write(Vectors[..1], 0, 1);
        ring.Push(wait: 1);
        ring.Sync(2);
        ring.Allocate(AllocateMode.PunchHole, 8192, 4096, 3);
        ring.Push();
        Assert.That(TakeAll(ring, 3), Is.EquivalentTo([(1UL, 4096), (2UL, 0), (3UL, 0)]));
        byte[] content = File.ReadAllBytes(_file.Path);
        Assert.That(content[..4096], Is.All.EqualTo(9));
        Assert.That(content[8192..12288], Is.All.EqualTo(0));
        Assert.That(content[12288], Is.EqualTo(4));
    }

    [Test]
    public void Push_MoreThanTheQueueHolds_AreAllDone()
    {
        using IoUring ring = Ring(4);
        for (int i = 0; i < 64; i++)
        {
            Vectors[0] = new IoVector(Data(0), 512);
            ring.Read(Vectors[..1], 0, (ulong)i);
            ring.Push(wait: 1);
            Assert.That(ring.TryTake(out ulong id, out int result), Is.True);
            Assert.That((id, result), Is.EqualTo(((ulong)i, 512)));
        }
    }

    [Test]
    public void BadAddress_IsAnErrorOfItsOwnRequest()
    {
        using IoUring ring = Ring();
        Vectors[0] = new IoVector(8, 4096);
        Vectors[1] = new IoVector(Data(0), 4096);
        ring.Read(Vectors[..1], 0, 1);
        ring.Read(Vectors[1..2], 0, 2);
        ring.Push();
        Assert.That(TakeAll(ring, 2), Is.EquivalentTo([(1UL, -14), (2UL, 4096)]));
    }

    [Test]
    public void Notifications_OnlyWhenTheyAreWanted_SignalTheEventFd()
    {
        using IoUring ring = Ring();
        Vectors[0] = new IoVector(Data(0), 4096);
        ring.Read(Vectors[..1], 0, 1);
        ring.Push(wait: 1);
        Assert.That(_ready.Drain(), Is.Zero);
        TakeAll(ring, 1);

        ring.SetNotifications(true);
        ring.Sync(2);
        ring.Push();
        TakeAll(ring, 1);
        Assert.That(_ready.Drain(), Is.Not.Zero);
    }

    // What somebody who has taken the process over would put into the queue.
    [TestCase(18, "OPENAT")]
    [TestCase(28, "OPENAT2")]
    [TestCase(45, "SOCKET")]
    [TestCase(16, "CONNECT")]
    [TestCase(13, "ACCEPT")]
    [TestCase(9, "SENDMSG")]
    [TestCase(35, "RENAMEAT")]
    [TestCase(36, "UNLINKAT")]
    [TestCase(42, "SETXATTR")]
    [TestCase(40, "MSG_RING")]
    [TestCase(46, "URING_CMD")]
    [TestCase(19, "CLOSE")]
    [TestCase(20, "FILES_UPDATE")]
    [TestCase(0, "NOP")]
    public unsafe void Operation_ThatADiskHasNoUseFor_IsRefusedByTheKernel(int operation, string name)
    {
        using IoUring ring = Ring();
        ring.Next((IoUringOperation)operation, 1);
        ring.Push();
        Assert.That(TakeAll(ring, 1), Is.EqualTo([(1UL, -Errnos.Eacces)]), name);
    }

    [Test]
    public unsafe void Read_OfADescriptorThatIsNotRegistered_IsRefusedByTheKernel()
    {
        using IoUring ring = Ring();
        Vectors[0] = new IoVector(Data(0), 4096);
        ring.Read(Vectors[..1], 0, 1);
        IoUringSqe* entry = ring.Next(IoUringOperation.Read, 2);
        entry->Flags = 0;
        entry->Fd = _descriptor.Number;
        entry->Addr = (ulong)Data(0);
        entry->Len = 4096;
        ring.Push();
        Assert.That(TakeAll(ring, 2), Is.EquivalentTo([(1UL, 4096), (2UL, -Errnos.Eacces)]));
    }

    private IoUring Ring(int entries = 8)
    {
        int errno = IoUring.Probe();
        if (errno != 0)
            Assert.Ignore($"no io_uring here (errno {errno}); see /proc/sys/kernel/io_uring_disabled");
        return new IoUring(entries, _descriptor, _ready);
    }

    private static List<(ulong, int)> TakeAll(IoUring ring, int count)
    {
        var taken = new List<(ulong, int)>();
        while (taken.Count < count)
        {
            if (ring.TryTake(out ulong id, out int result))
                taken.Add((id, result));
            else
                ring.Push(wait: 1);
        }
        Assert.That(ring.HasCompletions, Is.False);
        return taken;
    }

    private Span<IoVector> Vectors => _memory.AsSpan<IoVector>()[..16];

    private nint Data(int offset) => _memory.Address + 4096 + offset;

    private byte[] Bytes(int offset, int length) => _memory.AsSpan<byte>().Slice(4096 + offset, length).ToArray();

    [GeneratedRegex("(?<=[a-z0-9])([A-Z])")]
    private static partial Regex WordStart();
}
