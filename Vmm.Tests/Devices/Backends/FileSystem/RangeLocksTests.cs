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
            file.Add(owner, FileDescriptor.Open(_path, OpenMode.ReadWrite));
            if (file.Set(owner, 1, Range(start, OpenFileIo.WriteLock)) is int error and < 0)
            {
                Assert.That(error, Is.EqualTo(Enolck));
                break;
            }
            Assert.That(held, Has.Count.LessThanOrEqualTo(most));
        }
        Assert.That(held, Has.Count.InRange(most - 2, most));

        (RangeLocks lastFile, ulong lastOwner, long lastStart) = held.Peek();
        Assert.That(lastFile.Set(lastOwner, 1, Range(lastStart + 1, OpenFileIo.Unlock, length: 1)), Is.Zero.Or.EqualTo(Enolck), "two of one");
        Assert.That(lastFile.Set(lastOwner, 1, Range(lastStart, OpenFileIo.Unlock)), Is.Zero, "one less is always possible");
        Assert.That(lastFile.Set(lastOwner, 1, Range(lastStart, OpenFileIo.WriteLock)), Is.Zero, "and can be had again");

        // By closing, too: one owner of each file, then all.
        foreach (RangeLocks file in files)
            Assert.That(file.Remove(1));
        ReleasedDescriptors released = default;
        foreach (RangeLocks file in files)
            file.Clear(ref released);
        released.Close();
        files[0].Add(7, FileDescriptor.Open(_path, OpenMode.ReadWrite));
        for (int i = 0; i <= most - 2; i++)
            Assert.That(files[0].Set(7, 1, Range(10 * i, OpenFileIo.WriteLock)), Is.Zero, $"range {i}");
        Assert.That(files[0].Remove(7));
    }

    private static RangeLockRequest Range(long start, short type, long length = 3) => new() { Type = type, Start = start, Length = length };
}
