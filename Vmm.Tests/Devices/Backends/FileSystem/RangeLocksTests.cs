using NUnit.Framework;
using Vmm.Devices.Backends.FileSystem;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Tests.Devices.Backends.FileSystem;

/// <summary>How many ranges can be locked.</summary>
public sealed class RangeLocksTests
{
    private const int Enolck = -37;

    private string _path = "";

    [SetUp]
    public void MakeFile() => _path = Path.GetTempFileName();

    [TearDown]
    public void RemoveFile() => File.Delete(_path);

    // Owners and files are as many as a guest likes.
    [Test]
    public void Ranges_OfAllOwnersAndFiles_HaveALimit()
    {
        const int most = 20;
        var all = new RangeCount(most);
        RangeLocks[] files = [new(all), new(all)];
        var held = new Stack<(RangeLocks File, ulong Owner, long Start)>();
        (RangeLocks File, ulong Owner, long Start) Next() => (files[held.Count % 2], (ulong)(held.Count / 2), 10 * held.Count);
        for (; ; held.Push(Next()))
        {
            (RangeLocks file, ulong owner, long start) = Next();
            if (Set(file, owner, Range(start, OpenFileIo.WriteLock)) is int error and < 0)
            {
                Assert.That(error, Is.EqualTo(Enolck));
                break;
            }
            Assert.That(held, Has.Count.LessThanOrEqualTo(most));
        }
        Assert.That(held, Has.Count.InRange(most - 2, most));

        (RangeLocks lastFile, ulong lastOwner, long lastStart) = held.Peek();
        Assert.That(Set(lastFile, lastOwner, Range(lastStart + 1, OpenFileIo.Unlock, length: 1)), Is.Zero.Or.EqualTo(Enolck), "two of one");
        Assert.That(Set(lastFile, lastOwner, Range(lastStart, OpenFileIo.Unlock)), Is.Zero, "one less is always possible");
        Assert.That(Set(lastFile, lastOwner, Range(lastStart, OpenFileIo.WriteLock)), Is.Zero, "and can be had again");

        // By closing, too: one owner of each file, then all.
        foreach (RangeLocks file in files)
            Assert.That(file.Remove(1));
        ReleasedDescriptors released = default;
        foreach (RangeLocks file in files)
            file.Clear(ref released);
        released.Close();
        for (int i = 0; i <= most - 2; i++)
            Assert.That(Set(files[0], 7, Range(10 * i, OpenFileIo.WriteLock)), Is.Zero, $"range {i}");
        Assert.That(files[0].Remove(7));
    }

    // Owners are as many as a guest likes, too.
    [Test]
    public void Owner_WithoutALock_HasNoOpening()
    {
        var file = new RangeLocks(new RangeCount());
        RangeLocks.Owner? asker = file.Begin(1, FileDescriptor.Open(_path, OpenMode.ReadWrite));
        RangeLockRequest asked = Range(0, OpenFileIo.WriteLock);
        Assert.That(file.Get(asker, ref asked, out _), Is.Zero);
        file.End(asker, waits: false);
        Assert.That((file.Count, asker.File.IsClosed), Is.EqualTo((0, true)), "it has only asked");

        Assert.That(Set(file, 1, Range(0, OpenFileIo.WriteLock)), Is.Zero);
        Assert.That(Set(file, 2, Range(0, OpenFileIo.WriteLock)), Is.EqualTo(-Errnos.Eagain));
        Assert.That(file.Count, Is.EqualTo(1), "another has the lock");
        Assert.That(Set(file, 2, Range(0, OpenFileIo.WriteLock), waits: true), Is.EqualTo(-Errnos.Eagain));
        Assert.That(file.Count, Is.EqualTo(2), "it is tried again");
        file.RemoveIdle(2);
        file.RemoveIdle(1);
        Assert.That(file.Count, Is.EqualTo(1));

        // As another thread of that owner asks, its lock is given up, and taken.
        asker = file.Begin(1);
        Assert.That(Set(file, 1, Range(0, OpenFileIo.Unlock)), Is.Zero);
        file.RemoveIdle(1);
        Assert.That(file.Set(asker!, 1, Range(0, OpenFileIo.WriteLock)), Is.Zero);
        file.End(asker!, waits: false);
        Assert.That(file.Count, Is.EqualTo(1));
        Assert.That(Set(file, 1, Range(0, OpenFileIo.Unlock)), Is.Zero);
        Assert.That(file.Count, Is.Zero);
    }

    private int Set(RangeLocks file, ulong owner, RangeLockRequest range, bool waits = false)
    {
        RangeLocks.Owner opened = file.Begin(owner) ?? file.Begin(owner, FileDescriptor.Open(_path, OpenMode.ReadWrite));
        try
        {
            return file.Set(opened, 1, in range);
        }
        finally
        {
            file.End(opened, waits);
        }
    }

    private static RangeLockRequest Range(long start, short type, long length = 3) => new() { Type = type, Start = start, Length = length };
}
