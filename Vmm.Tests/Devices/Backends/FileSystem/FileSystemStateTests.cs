using System.Buffers.Binary;
using System.Globalization;
using System.Runtime.InteropServices;
using NUnit.Framework;
using Tmds.Linux;
using Vmm.Devices.Backends.FileSystem;
using Vmm.Tests.Fakes;
using Vmm.Tests.Integration;
using Vmm.Tests.Integration.Linux.Devices;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Backend;
using Vmm.Vhost.User.Protocol;
using static Vmm.Tests.Conformance.FuseClient;

namespace Vmm.Tests.Devices.Backends.FileSystem;

/// <summary>What outlives a process: by the memory that its front-end keeps, and as a state that is saved.</summary>
public class FileSystemStateTests : FileSystemTest
{
    private const int Eio = 5, Ebadf = 9, Stale = 116;

    [Test]
    public void Killed_FilesThatAreKnownAndOpen_GoOn()
    {
        string longName = new('n', 250);
        VmmProcess process = Serve();
        using var guest = new FuseGuest(SocketPath);
        ulong directory = guest.MakeDirectory(FuseGuest.Root, "directory");
        (ulong node, ulong handle) = guest.Create(directory, "file");
        ulong named = guest.Create(directory, longName).Node;
        (ulong gone, ulong goneHandle) = guest.Create(FuseGuest.Root, "gone");
        ulong forgotten = guest.Create(FuseGuest.Root, "forgotten").Node;
        guest.Fuse.Forget(forgotten, 1);
        guest.Fuse.Write(node, handle, 0, "before"u8.ToArray());
        Assert.That(guest.Rename(directory, "file", FuseGuest.Root, "moved"), Is.Zero);
        Assert.That(guest.Unlink(FuseGuest.Root, "gone"), Is.Zero);
        ulong listing = U64(guest.Demand(27, directory, Bytes(0U, 0U), 16), 0);

        process = Restart(process, guest, 1);
        process.WaitForErrors("2 of 5 openings that a process before this one had are lost");
        Assert.That(guest.Fuse.Read(node, handle, 0, 100), Is.EqualTo("before"u8.ToArray()));
        guest.Fuse.Write(node, handle, 6, ", after"u8.ToArray());
        Assert.That(File.ReadAllText(In("moved")), Is.EqualTo("before, after"));
        Assert.That(guest.Node($"directory/{longName}"), Is.EqualTo(named), "it has the number that the guest knows");
        Assert.That(guest.Demand(28, directory, [.. Bytes(listing, 0UL), .. Bytes(4096U, 0U), .. Bytes(0UL), .. Bytes(0U, 0U)], 4096), Is.Not.Empty);
        Assert.That(guest.Try(15, gone, [.. Bytes(goneHandle, 0UL), .. Bytes(10U, 0U), .. Bytes(0UL), .. Bytes(0U, 0U)], 10), Is.EqualTo(-Ebadf), "nothing leads to it");
        Assert.That(guest.TryAttributes(gone), Is.EqualTo(-Stale));
        Assert.That(guest.TryAttributes(forgotten), Is.EqualTo(-Stale));
        (ulong newer, ulong newHandle) = guest.Create(FuseGuest.Root, "newer");
        Assert.That((newer > forgotten, newHandle > listing), Is.EqualTo((true, true)), "no number is given out twice");

        // And once more, by what its successor has written down.
        Restart(process, guest, 2);
        guest.Fuse.Write(newer, newHandle, 0, "newer"u8.ToArray());
        Assert.That((guest.ReadText(node), guest.ReadText(newer)), Is.EqualTo(("before, after", "newer")));
        guest.Fuse.Forget(named, 2);
        Assert.That(guest.TryAttributes(named), Is.EqualTo(-Stale), "it was looked up as often as the guest says");
        guest.Begin(FuseGuest.AllFlags);
        Assert.That(guest.TryAttributes(node), Is.EqualTo(-Stale), "a new session knows nothing");
    }

    [Test]
    public void Killed_AgainAndAgain_NothingIsLost()
    {
        VmmProcess process = Serve();
        using var guest = new FuseGuest(SocketPath);
        (ulong node, ulong handle) = guest.Create(FuseGuest.Root, "file");
        const int size = 256 * 1024;
        byte[] expected = new byte[size];
        guest.Fuse.Write(node, handle, 0, expected[..(128 * 1024)]);
        guest.Fuse.Write(node, handle, 128 * 1024, expected[(128 * 1024)..]);
        var random = new Random(7);
        int kills = VmmTest.IsFull ? 20 : 5;
        for (int kill = 1; kill <= kills; kill++)
        {
            // In the middle of something, most times.
            int delay = random.Next(1, 40);
            VmmProcess victim = process;
            Task killer = Task.Run(() =>
            {
                Thread.Sleep(delay);
                victim.Signal(LibC.SIGKILL);
                victim.WaitForEnd();
                process = Serve();
            });
            int operations = 0;
            while (!killer.IsCompleted || guest.Peer.Disconnections < kill || operations % 100 != 0)
            {
                int length = random.Next(1, 60_000), offset = random.Next(size - length);
                if (random.Next(3) == 0)
                {
                    Assert.That(guest.Fuse.Read(node, handle, (ulong)offset, (uint)length), Is.EqualTo(expected.AsSpan(offset, length).ToArray()));
                }
                else
                {
                    random.NextBytes(expected.AsSpan(offset, length));
                    guest.Fuse.Write(node, handle, (ulong)offset, expected.AsSpan(offset, length).ToArray());
                }
                operations++;
            }
            killer.Wait();
            guest.Peer.WaitUntilRestored(kill);
        }
        Assert.That(File.ReadAllBytes(In("file")), Is.EqualTo(expected));
    }

    [TestCase(false)]
    [TestCase(true)]
    public void State_OfAnotherProcess_IsGoneOnWith(bool isElsewhere)
    {
        Directory.CreateDirectory(In("directory"));
        File.WriteAllText(In("directory/file"), "text");
        File.WriteAllText(In("other"), "");
        using var source = new Server(Shared);
        ulong directory = U64(source.Demand(1, FuseGuest.Root, Name("directory")), 0);
        ulong file = U64(source.Demand(1, directory, Name("file")), 0);
        ulong other = U64(source.Demand(1, FuseGuest.Root, Name("other")), 0);
        ulong handle = U64(source.Demand(14, file, Bytes(2U, 0U)), 0);
        byte[] state = source.Fuse.Save()!;
        Assert.That(source.Demand(15, file, Transfer(handle, 10)), Is.EqualTo("text"u8.ToArray()), "the source goes on");
        string place = Shared;
        if (isElsewhere)
        {
            place = Directory.CreateDirectory(Path.Combine(Scratch, "copy")).FullName;
            Directory.CreateDirectory(Path.Combine(place, "directory"));
            File.WriteAllText(Path.Combine(place, "directory/file"), "copy");
            Directory.CreateDirectory(Path.Combine(place, "other"));
        }
        using var target = new Server(place);
        Assert.That(target.Fuse.Load(state));
        Assert.That(target.Demand(15, file, Transfer(handle, 10)), Is.EqualTo(isElsewhere ? "copy"u8.ToArray() : "text"u8.ToArray()));
        Assert.That(U64(target.Demand(1, directory, Name("file")), 0), Is.EqualTo(file));
        Assert.That(target.Try(3, other, Bytes(0UL, 0UL)), Is.EqualTo(isElsewhere ? -Stale : 0), "a directory now, where a file was");
        Assert.That(target.Fuse.Load([]), Is.False);
        Assert.That(target.Fuse.Load(new byte[4096]), Is.False);
    }

    [Test]
    public void State_OfAnyContents_IsRefusedOrGoneOnWith()
    {
        for (int i = 0; i < 20; i++)
            File.WriteAllText(In($"file-{i}-{new string('x', i * 10)}"), "");
        using var source = new Server(Shared);
        for (int i = 0; i < 20; i++)
        {
            ulong node = U64(source.Demand(1, FuseGuest.Root, Name($"file-{i}-{new string('x', i * 10)}")), 0);
            source.Demand(14, node, Bytes(0U, 0U));
        }
        byte[] state = source.Fuse.Save()!;
        using var target = new Server(Shared);
        int loaded = 0;
        for (int seed = 0; seed < 300; seed++)
        {
            var random = new Random(seed);
            byte[] changed = [.. state];
            for (int change = random.Next(1, 60); change > 0; change--)
                changed[random.Next(changed.Length)] = (byte)(random.Next(3) == 0 ? random.Next(256) : random.Next(5));
            changed = random.Next(5) == 0 ? changed[..random.Next(changed.Length)] : changed;
            if (!target.Fuse.Load(changed))
                continue;
            loaded++;
            for (ulong node = 1; node < 25; node++)
                target.Try(3, node, Bytes(0UL, 0UL));
            target.Fuse.Save();
        }
        Assert.That(loaded, Is.GreaterThan(10));
    }

    [Test]
    public void FrontEnd_ThatComesBack_GoesOnByTheMemoryThatItKept()
    {
        File.WriteAllText(In("file"), "text");
        using var server = new Server(Shared);
        using FrontEndDriver first = Connect(server);
        InflightPayload payload = LostRequests.GetLog(first, 2, 16, out FileDescriptor log);
        using (log)
        {
            Assert.That(first.Ask(VhostUserRequest.SetInflightFd, payload, log), Is.Zero);
            ulong node = U64(server.Demand(1, FuseGuest.Root, Name("file")), 0);
            ulong handle = U64(server.Demand(14, node, Bytes(2U, 0U)), 0);
            string blocks = HostCommand.Run("stat", "-L", "-c", "%b", $"/proc/{Environment.ProcessId}/fd/{log.Number}");
            Assert.That(int.Parse(blocks, CultureInfo.InvariantCulture) * 512, Is.LessThan(1 << 20), "what is not used takes no room");
            first.Leave();
            Assert.That(server.Fuse.Count, Is.EqualTo((1, 0, 0)), "nothing but the directory");
            Assert.That(server.Try(3, node, Bytes(0UL, 0UL)), Is.EqualTo(-Eio), "there is no session");

            using FrontEndDriver second = Connect(server);
            Assert.That(second.Ask(VhostUserRequest.SetInflightFd, payload, log), Is.Zero);
            Assert.That(server.Demand(15, node, Transfer(handle, 10)), Is.EqualTo("text"u8.ToArray()));
            second.Leave();
        }
    }

    // What it is saved in grows with it: half a million files are no limit, and ten need no 64 MiB.
    [Test]
    public void State_OfAFewFiles_TakesLittleMemory()
    {
        foreach (int length in (int[])[1, 47, 48, 49, 167, 168, 169, 255])
            File.WriteAllText(In(new string('n', length)), "");
        using var source = new Server(Shared);
        foreach (string path in Directory.GetFiles(Shared))
            source.Demand(14, U64(source.Demand(1, FuseGuest.Root, Name(Path.GetFileName(path))), 0), Bytes(0U, 0U));
        long before = GC.GetAllocatedBytesForCurrentThread();
        byte[]? state = source.Fuse.Save();
        Assert.That(GC.GetAllocatedBytesForCurrentThread() - before, Is.LessThan(1 << 20));
        using var target = new Server(Shared);
        Assert.That(state, Is.Not.Null);
        Assert.That(target.Fuse.Load(state), Is.True);
        Assert.That(target.Fuse.Count, Is.EqualTo((9, 8, 8)));
    }

    [Test]
    public void Table_WithoutRoom_SaysSo()
    {
        byte[] memory = new byte[SessionTable.HeaderRoom + 2 * SessionTable.SlotSize];
        var table = new SessionTable(() => memory);
        table.Clear();
        Inode[] files = [.. Enumerable.Range(2, 3).Select(id => new Inode((ulong)id, default, default, 0) { Lookups = 1 })];
        Assert.That(files[..2].Select(table.Add), Is.EqualTo(new[] { 0, 1 }));
        Assert.That(table.IsFull, Is.False);
        Assert.That((table.Add(files[2]), table.IsFull), Is.EqualTo((-1, true)));
        using FileDescriptor any = FileDescriptor.Open("/dev/null", OpenMode.ReadOnly);
        Assert.That(table.Add(new OpenFile(7, files[0], any, 0)), Is.EqualTo(-1));
        Assert.That(table.Last, Is.EqualTo((4UL, 7UL)), "a successor gives no number out again");
    }

    // There is no room for two records of it, so that there is none for a moment. A longer name takes two slots.
    [TestCase(2, 10)]
    [TestCase(3, 100)]
    public void Table_WithoutRoom_KeepsAFileThatIsRenamed(int slots, int length)
    {
        byte[] memory = new byte[SessionTable.HeaderRoom + slots * SessionTable.SlotSize];
        var table = new SessionTable(() => memory);
        table.Clear();
        var file = new Inode(2, default, default, 0) { Lookups = 1, Name = "old\0"u8.ToArray() };
        file.Slot = table.Add(file);
        using FileDescriptor any = FileDescriptor.Open("/dev/null", OpenMode.ReadOnly);
        Assert.That(table.Add(new OpenFile(7, file, any, 0)), Is.EqualTo(1));
        file.Name = Name(new string('n', length));
        file.Slot = table.Move(file);
        Assert.That(file.Slot, Is.Not.Negative);
        Assert.That(Loaded().Single().Name, Is.EqualTo(file.Name));

        // One for which there is no room at all is lost whole, and what it had is free.
        file.Name = Name(new string('n', length + 250));
        file.Slot = table.Move(file);
        Assert.That((file.Slot, Loaded().Count), Is.EqualTo((-1, 0)));
        file.Name = Name(new string('n', length));
        Assert.That(table.Move(file), Is.Not.Negative);

        List<FileRecord> Loaded()
        {
            byte[] copy = [.. memory];
            return new SessionTable(() => copy).Load().Files;
        }
    }

    // The front-end has the memory, too, and changes it while it is in use.
    [Test]
    public void Table_ChainWithoutEnd_GivesEachSlotBackOnce()
    {
        const int nameLength = 72;      // in a record
        const int next = 4;             // in a slot with the rest of a name
        byte[] memory = new byte[SessionTable.HeaderRoom + 32 * SessionTable.SlotSize];
        var table = new SessionTable(() => memory, isKept: true);
        table.Clear();
        Inode[] files = [.. Enumerable.Range(2, 8).Select(id => new Inode((ulong)id, default, default, 0) { Lookups = 1, Name = Name(new string('n', 100)) })];
        Assert.That(files[..2].Select(table.Add), Is.EqualTo(new[] { 0, 2 }));
        BinaryPrimitives.WriteUInt32LittleEndian(memory.AsSpan(SessionTable.HeaderRoom + nameLength), int.MaxValue);
        BinaryPrimitives.WriteInt32LittleEndian(memory.AsSpan(SessionTable.HeaderRoom + SessionTable.SlotSize + next), 1);
        long before = GC.GetAllocatedBytesForCurrentThread();
        table.Remove(0);
        Assert.That(GC.GetAllocatedBytesForCurrentThread() - before, Is.LessThan(4096));
        Assert.That(files[2..].Select(table.Add), Is.Unique);
    }

    [Test]
    public void Table_NumbersBeyondAll_AreNotTakenOver()
    {
        const int lastFile = 32, lastOpening = 40;      // in the header
        byte[] memory = new byte[SessionTable.HeaderRoom + SessionTable.SlotSize];
        var table = new SessionTable(() => memory, isKept: true);
        table.Clear();
        memory.AsSpan(lastFile, sizeof(ulong)).Fill(0xFF);
        memory.AsSpan(lastOpening, sizeof(ulong)).Fill(0xFF);
        Assert.That(table.Last, Is.EqualTo(((ulong)long.MaxValue, (ulong)long.MaxValue)));
    }

    [Test]
    public void State_OfAGuestThatHasNotMounted_IsGoneOnWith()
    {
        using var source = new Server(Shared);
        source.Demand(38, 0, []);
        using var target = new Server(Shared);
        Assert.That(target.Fuse.Load(source.Fuse.Save()!));
        Assert.That(target.Try(3, FuseGuest.Root, Bytes(0UL, 0UL)), Is.EqualTo(-Eio), "there is no session");
        target.Begin();
        Assert.That(target.Try(3, FuseGuest.Root, Bytes(0UL, 0UL)), Is.Zero);
    }

    [Test]
    public void State_WhoseMountsHaveOtherNumbers_IsGoneOnWith()
    {
        foreach (string name in new[] { "file", "replaced" })
            File.WriteAllText(In(name), name);
        using var source = new Server(Shared);
        ulong file = U64(source.Demand(1, FuseGuest.Root, Name("file")), 0), replaced = U64(source.Demand(1, FuseGuest.Root, Name("replaced")), 0);
        byte[] state = source.Fuse.Save()!;
        GiveMountsOtherNumbers(state, root: 1000, files: 1000);
        File.WriteAllText(In("new"), "new");
        File.Move(In("new"), In("replaced"), overwrite: true);
        using var target = new Server(Shared);
        Assert.That(target.Fuse.Load(state));
        Assert.That(target.Try(3, file, Bytes(0UL, 0UL)), Is.Zero);
        Assert.That(U64(target.Demand(1, FuseGuest.Root, Name("file")), 0), Is.EqualTo(file));
        Assert.That(target.Try(3, replaced, Bytes(0UL, 0UL)), Is.EqualTo(-Stale), "another file");
    }

    [Test]
    public void State_OfACopy_FollowsItsDirectories()
    {
        string place = Directory.CreateDirectory(Path.Combine(Scratch, "copy")).FullName;
        foreach (string each in new[] { Shared, place })
        {
            Directory.CreateDirectory(Path.Combine(each, "directory"));
            File.WriteAllText(Path.Combine(each, "directory/file"), "");
        }
        using var source = new Server(Shared);
        ulong directory = U64(source.Demand(1, FuseGuest.Root, Name("directory")), 0);
        ulong file = U64(source.Demand(1, directory, Name("file")), 0);
        using var target = new Server(place);
        Assert.That(target.Fuse.Load(source.Fuse.Save()!));
        target.Demand(12, FuseGuest.Root, [.. Bytes(FuseGuest.Root), .. Name("directory"), .. Name("moved")]);
        Assert.That(target.Try(3, file, Bytes(0UL, 0UL)), Is.Zero);
    }

    [Test]
    public void State_WhoseLastNumberIsWrong_GivesNoNumberTwice()
    {
        foreach (string name in new[] { "a", "b" })
            File.WriteAllText(In(name), "");
        using var source = new Server(Shared);
        ulong a = U64(source.Demand(1, FuseGuest.Root, Name("a")), 0);
        byte[] state = source.Fuse.Save()!;
        const int lastFile = 32;
        Assert.That(U64(state, lastFile), Is.EqualTo(a));
        using var target = new Server(Shared);
        BitConverter.TryWriteBytes(state.AsSpan(lastFile), ulong.MaxValue);
        Assert.That(target.Fuse.Load(state), Is.False);
        BitConverter.TryWriteBytes(state.AsSpan(lastFile), 0UL);
        Assert.That(target.Fuse.Load(state));
        Assert.That(U64(target.Demand(1, FuseGuest.Root, Name("b")), 0), Is.GreaterThan(a));
    }

    [Test]
    public void Killed_WhatIsForOnce_IsNotDoneTwice()
    {
        File.WriteAllText(In("a"), "a");
        File.WriteAllText(In("b"), "b");
        using var server = new Server(Shared);
        ulong node = U64(server.Demand(1, FuseGuest.Root, Name("a")), 0);
        ulong handle = U64(server.Demand(14, node, Bytes(0x402U, 0U)), 0);
        byte[] Write(uint flags) => Server.Request(16, node, [.. Bytes(handle, 0UL), .. Bytes(3U, 0U), .. Bytes(0UL), .. Bytes(flags, 0U), .. "new"u8]);
        byte[][] requests =
        [
            Write(0x400),
            Server.Request(45, FuseGuest.Root, [.. Bytes(FuseGuest.Root), .. Bytes(2U, 0U), .. Name("a"), .. Name("b")]),
            Server.Request(45, FuseGuest.Root, [.. Bytes(FuseGuest.Root), .. Bytes(4U, 0U), .. Name("a"), .. Name("b")]),
            Server.Request(43, node, [.. Bytes(handle, 0UL, 4096UL), .. Bytes(0x20U, 0U)]),
            Write(0),
        ];
        using var lost = new LostRequests(requests.Length, 0, VhostUserProtocolFeatures.InflightShmFd, add: (ring, i) => ring.Add(requests[i], 64));
        using FrontEndRing again = lost.GiveTo(server);
        again.Enable(true);
        int[] errors = [.. requests.Select(_ => MemoryMarshal.Read<int>(again.Take().Bytes.AsSpan(4)))];
        Assert.That(errors, Is.EqualTo(new[] { -Eio, -Eio, -Eio, -Eio, 0 }), "an append, an exchange, a whiteout, a part that moves; and what is the same twice");
        Assert.That((File.ReadAllText(In("a")), File.ReadAllText(In("b"))), Is.EqualTo(("new", "b")));
        again.Add(Write(0x400), 64);
        Assert.That(MemoryMarshal.Read<int>(again.Take().Bytes.AsSpan(4)), Is.Zero);
        Assert.That(File.ReadAllText(In("a")), Is.EqualTo("newnew"), "one that nobody has done");
        again.Stop();
    }

    // It was killed when it had done them, and had not said so.
    [Test]
    public void Killed_WhatARequestHasGivenOutThatIsDoneAgain_IsTakenBack()
    {
        foreach (string name in new[] { "file", "other" })
            File.WriteAllText(In(name), "");
        using var before = new Server(Shared);
        ulong file = U64(before.Demand(1, FuseGuest.Root, Name("file")), 0), listing = U64(before.Demand(27, FuseGuest.Root, Bytes(0U, 0U)), 0);
        byte[][] requests =
        [
            Server.Request(14, file, Bytes(0U, 0U), unique: 100),
            Server.Request(27, FuseGuest.Root, Bytes(0U, 0U), unique: 102),
            Server.Request(1, FuseGuest.Root, Name("file"), unique: 104),
            Server.Request(1, FuseGuest.Root, Name("other"), unique: 106),
            Server.Request(35, FuseGuest.Root, [.. Bytes(0x42U, 0x81A4U, 0U, 0U), .. Name("made")], unique: 108),
            Server.Request(45, FuseGuest.Root, [.. Bytes(FuseGuest.Root), .. Bytes(1U, 0U), .. Name("file"), .. Name("other")], unique: 110),
            Server.Request(44, FuseGuest.Root, Transfer(listing, 4000), unique: 112),
        ];
        using var lost = new LostRequests(
            requests.Length, 0, VhostUserProtocolFeatures.InflightShmFd, add: (ring, i) => ring.Add(requests[i], 0x700), kept: FuseServer.KeptSize);
        using FrontEndRing first = lost.GiveTo(before);
        foreach (byte[] request in requests)
            before.Ask(request);
        Assert.That((before.Fuse.Count.Files, before.Fuse.Count.Handles), Is.EqualTo((4, 4)));

        using var after = new Server(Shared, hasBegun: false);
        using FrontEndRing again = lost.GiveTo(after);
        Assert.That(after.Fuse.Count.Handles, Is.EqualTo(4), "as the process before it had them");
        again.Enable(true);
        byte[][] replies = [.. requests.Select(_ => again.Take().Bytes)];
        Assert.That(replies.Select(reply => MemoryMarshal.Read<int>(reply.AsSpan(4))), Is.EqualTo(new[] { 0, 0, 0, 0, 0, -17, 0 }), "EEXIST is the only error");
        Assert.That(after.Fuse.Count.Handles, Is.EqualTo(4), "the guest knows no others");
        Assert.That(after.Try(15, file, Transfer(U64(replies[0], 16), 10)), Is.Zero);
        Assert.That(U64(replies[2], 16), Is.EqualTo(file));
        // As often as the guest was told: once before, and by each answer.
        after.Forget(file, 3);
        after.Forget(U64(replies[3], 16), 2);
        Assert.That(after.Fuse.Count.Files, Is.EqualTo(2), "what was made is left");
        after.Forget(U64(replies[4], 16), 1);
        Assert.That(after.Fuse.Count.Files, Is.EqualTo(2), "it was told of twice");
        after.Forget(U64(replies[4], 16), 1);
        Assert.That(after.Fuse.Count.Files, Is.EqualTo(1));
        again.Stop();
    }

    // What of the guest's is not open may be lost where there is too much of it. That needs fewer files here than it does with 64 MiB.
    [Test]
    public void Killed_MoreFilesThanThereIsRoomFor_WhatIsOpenGoesOn()
    {
        const int size = 64 * 1024, files = size / SessionTable.SlotSize;
        foreach (string path in new[] { "early", "late/deep", "target" })
            Directory.CreateDirectory(In(path));
        foreach (string path in new[] { "early/file", "late/deep/file" })
            File.WriteAllText(In(path), path);
        for (int i = 0; i < files; i++)
            File.WriteAllText(In($"many{i}"), "");
        using var server = new Server(Shared, keptSize: size);
        using FrontEndDriver first = Connect(server);
        InflightPayload payload = LostRequests.GetLog(first, 2, 16, out FileDescriptor log);
        using (log)
        {
            Assert.That(first.Ask(VhostUserRequest.SetInflightFd, payload, log), Is.Zero);
            ulong Find(ulong parent, string name) => U64(server.Demand(1, parent, Name(name)), 0);
            ulong early = Find(FuseGuest.Root, "early"), earlyFile = Find(early, "file"), earlyHandle = U64(server.Demand(14, earlyFile, Bytes(2U, 0U)), 0);
            ulong[] many = [.. Enumerable.Range(0, files).Select(i => Find(FuseGuest.Root, $"many{i}"))];
            ulong late = Find(FuseGuest.Root, "late"), deep = Find(late, "deep"), lateFile = Find(deep, "file"), target = Find(FuseGuest.Root, "target");
            ulong lateHandle = U64(server.Demand(14, lateFile, Bytes(2U, 0U)), 0);
            server.Demand(12, FuseGuest.Root, [.. Bytes(target), .. Name("early"), .. Name("moved")]);
            first.Leave();

            using FrontEndDriver second = Connect(server);
            Assert.That(second.Ask(VhostUserRequest.SetInflightFd, payload, log), Is.Zero);
            Assert.That(server.Demand(15, lateFile, Transfer(lateHandle, 100)), Is.EqualTo("late/deep/file"u8.ToArray()), "opened when there was no room any more");
            Assert.That(server.Demand(15, earlyFile, Transfer(earlyHandle, 100)), Is.EqualTo("early/file"u8.ToArray()), "moved then");
            Assert.That((server.Try(3, deep, Bytes(0UL, 0UL)), server.Try(3, many[0], Bytes(0UL, 0UL))), Is.EqualTo((0, 0)));
            Assert.That(server.Try(3, many[^1], Bytes(0UL, 0UL)), Is.EqualTo(-Stale), "it is looked up again");
            Assert.That(server.Try(3, Find(FuseGuest.Root, $"many{files - 1}"), Bytes(0UL, 0UL)), Is.Zero);
            second.Leave();
        }
    }

    [Test]
    public void Killed_ThenStartedWithOtherOptions_SaysWhatTheGuestMisses()
    {
        VmmProcess process = Serve("--writeback");
        using var guest = new FuseGuest(SocketPath);
        process = Restart(process, guest, 1);
        process.WaitForErrors("does not offer (--writeback), so it gets EIO: unmount and mount again there");
        Assert.That(guest.TryAttributes(FuseGuest.Root), Is.EqualTo(-Eio));
        guest.Begin(FuseGuest.AllFlags);
        Assert.That(guest.TryAttributes(FuseGuest.Root), Is.Zero);
    }

    [Test]
    public void Killed_ThenStartedWithAnotherDirectory_SaysSo()
    {
        VmmProcess process = Serve();
        using var guest = new FuseGuest(SocketPath);
        process.Signal(LibC.SIGKILL);
        process.WaitForEnd();
        process = StartBackend("fs", "--shared-dir", Directory.CreateDirectory(Path.Combine(Scratch, "another")).FullName);
        guest.Peer.WaitUntilRestored(1);
        process.WaitForErrors("served another directory, so the guest gets EIO: unmount and mount again there");
        Assert.That(guest.TryAttributes(FuseGuest.Root), Is.EqualTo(-Eio));
    }

    // In a copy the name leads to what has it now.
    [TestCase("renamed over")]
    [TestCase("removed")]
    [TestCase("replaced by the host")]
    public void State_OfACopy_AnOpenFileThatHasLostItsName_IsLost(string how)
    {
        string place = Directory.CreateDirectory(Path.Combine(Scratch, "copy")).FullName;
        File.WriteAllText(In("file"), "old");
        File.WriteAllText(In("other"), "new");
        File.WriteAllText(Path.Combine(place, "file"), "new");
        using var source = new Server(Shared);
        ulong old = U64(source.Demand(1, FuseGuest.Root, Name("file")), 0), other = U64(source.Demand(1, FuseGuest.Root, Name("other")), 0);
        ulong handle = U64(source.Demand(14, old, Bytes(2U, 0U)), 0), otherHandle = U64(source.Demand(14, other, Bytes(2U, 0U)), 0);
        if (how == "removed")
            source.Demand(10, FuseGuest.Root, Name("file"));
        if (how == "replaced by the host")
            File.Move(In("other"), In("file"), overwrite: true);
        else
            source.Demand(12, FuseGuest.Root, [.. Bytes(FuseGuest.Root), .. Name("other"), .. Name("file")]);
        Assert.That(source.Demand(15, old, Transfer(handle, 10)), Is.EqualTo("old"u8.ToArray()));

        using var target = new Server(place);
        Assert.That(target.Fuse.Load(source.Fuse.Save()!));
        Assert.That(target.Try(15, old, Transfer(handle, 10)), Is.EqualTo(-Ebadf), "not what has its name now");
        Assert.That(target.Try(3, old, Bytes(0UL, 0UL)), Is.EqualTo(-Stale));
        if (how != "replaced by the host")      // of which the guest knows nothing
            Assert.That(target.Demand(15, other, Transfer(otherHandle, 10)), Is.EqualTo("new"u8.ToArray()));
        Assert.That(source.Demand(15, old, Transfer(handle, 10)), Is.EqualTo("old"u8.ToArray()), "the source goes on");
    }

    // As a mount below root's directory has one in each of its processes. The test changes the numbers in the state.
    [Test]
    public void State_OfAMountThatHasAnotherNumber_IsOfTheVerySameFiles()
    {
        foreach (string name in new[] { "file", "replaced" })
            File.WriteAllText(In(name), name);
        using var source = new Server(Shared);
        ulong file = U64(source.Demand(1, FuseGuest.Root, Name("file")), 0), replaced = U64(source.Demand(1, FuseGuest.Root, Name("replaced")), 0);
        ulong handle = U64(source.Demand(14, file, Bytes(2U, 0U)), 0), other = U64(source.Demand(14, replaced, Bytes(2U, 0U)), 0);
        byte[] state = source.Fuse.Save()!;
        GiveMountsOtherNumbers(state, root: 1000, files: 2000);
        File.WriteAllText(In("new"), "new");
        File.Move(In("new"), In("replaced"), overwrite: true);
        using var target = new Server(Shared);
        Assert.That(target.Fuse.Load(state));
        Assert.That(target.Demand(15, file, Transfer(handle, 10)), Is.EqualTo("file"u8.ToArray()));
        Assert.That(target.Try(15, replaced, Transfer(other, 10)), Is.EqualTo(-Ebadf), "another file");
        Assert.That(target.Try(3, replaced, Bytes(0UL, 0UL)), Is.EqualTo(-Stale));
    }

    // The header has the number that the first of three processes knew, and the third has that again. What the second has written has another.
    [Test]
    public void State_OfAProcessWhoseMountHadAnotherNumber_IsGoneOnWith()
    {
        File.WriteAllText(In("file"), "text");
        using var source = new Server(Shared);
        ulong file = U64(source.Demand(1, FuseGuest.Root, Name("file")), 0), handle = U64(source.Demand(14, file, Bytes(2U, 0U)), 0);
        byte[] state = source.Fuse.Save()!;
        GiveMountsOtherNumbers(state, root: 0, files: 1000);
        using var target = new Server(Shared);
        Assert.That(target.Fuse.Load(state));
        Assert.That(target.Try(3, file, Bytes(0UL, 0UL)), Is.Zero);
        Assert.That(target.Demand(15, file, Transfer(handle, 10)), Is.EqualTo("text"u8.ToArray()));
        Assert.That(U64(target.Demand(1, FuseGuest.Root, Name("file")), 0), Is.EqualTo(file), "it is still the same for the guest");
    }

    [Test]
    public void State_OfAMountBelowThatHadTheNumberOfTheDirectorysMount_IsGoneOnWith()
    {
        RequireRoot();
        const int rootMount = 56, mountInSlot = 40;
        const ulong before = 1_000_000;
        Directory.CreateDirectory(In("below"));
        HostCommand.Run("mount", "-t", "tmpfs", "none", In("below"));
        try
        {
            File.WriteAllText(In("below/file"), "text");
            using var source = new Server(Shared);
            ulong below = U64(source.Demand(1, FuseGuest.Root, Name("below")), 0);
            ulong file = U64(source.Demand(1, below, Name("file")), 0), handle = U64(source.Demand(14, file, Bytes(2U, 0U)), 0);
            byte[] state = source.Fuse.Save()!;
            ulong now = U64(state, rootMount);
            for (int at = SessionTable.HeaderRoom + mountInSlot; at < state.Length; at += SessionTable.SlotSize)
                BitConverter.TryWriteBytes(state.AsSpan(at), U64(state, at) == now ? before : now);
            BitConverter.TryWriteBytes(state.AsSpan(rootMount), before);
            using var target = new Server(Shared);
            Assert.That(target.Fuse.Load(state));
            Assert.That(target.Try(3, file, Bytes(0UL, 0UL)), Is.Zero);
            Assert.That(target.Demand(15, file, Transfer(handle, 10)), Is.EqualTo("text"u8.ToArray()));
        }
        finally
        {
            HostCommand.Run("umount", "--lazy", In("below"));
        }
    }

    // The roots of two ext4 file systems are both inode 2, and the devices may have one number on both hosts.
    [Test]
    public void State_OfACopyWhoseRootHasTheSameNumbers_IsGoneOnWith()
    {
        Thread.Sleep(20);   // the kernel's clock for files goes on in steps
        string place = Directory.CreateDirectory(Path.Combine(Scratch, "copy")).FullName;
        foreach (string each in new[] { Shared, place })
            File.WriteAllText(Path.Combine(each, "file"), "text");
        using var source = new Server(Shared);
        ulong file = U64(source.Demand(1, FuseGuest.Root, Name("file")), 0);
        ulong handle = U64(source.Demand(14, file, Bytes(2U, 0U)), 0);
        byte[] state = source.Fuse.Save()!;
        using var target = new Server(place);
        const int device = 8, end = 24;
        target.Fuse.Save().AsSpan(device..end).CopyTo(state.AsSpan(device));
        Assert.That(target.Fuse.Load(state));
        Assert.That(target.Demand(15, file, Transfer(handle, 10)), Is.EqualTo("text"u8.ToArray()));
    }

    [Test]
    public void State_OfAFileWhoseDirectoryIsForgotten_IsFoundByItsOtherName()
    {
        MakeLinked();
        using var source = new Server(Shared);
        ulong a = U64(source.Demand(1, FuseGuest.Root, Name("a")), 0), b = U64(source.Demand(1, FuseGuest.Root, Name("b")), 0);
        ulong file = U64(source.Demand(1, a, Name("file")), 0);
        ulong handle = U64(source.Demand(14, file, Bytes(2U, 0U)), 0);
        Assert.That(U64(source.Demand(1, b, Name("file")), 0), Is.EqualTo(file));
        source.Forget(b);
        using var target = new Server(Shared);
        Assert.That(target.Fuse.Load(source.Fuse.Save()!));
        Assert.That(target.Demand(15, file, Transfer(handle, 10)), Is.EqualTo("text"u8.ToArray()));
    }

    [Test]
    public void Killed_AFileWhoseDirectoryIsForgotten_IsFoundByItsOtherName()
    {
        MakeLinked();
        VmmProcess process = Serve();
        using var guest = new FuseGuest(SocketPath);
        ulong file = guest.Node("a/file"), handle = (ulong)guest.Open(file), b = guest.Node("b");
        Assert.That(guest.Node("b/file"), Is.EqualTo(file));
        guest.Fuse.Forget(b, 2);
        Restart(process, guest, 1);
        Assert.That(guest.Fuse.Read(file, handle, 0, 100), Is.EqualTo("text"u8.ToArray()));
        Assert.That(guest.TryAttributes(file), Is.Zero);
    }

    private void MakeLinked()
    {
        foreach (string name in new[] { "a", "b" })
            Directory.CreateDirectory(In(name));
        File.WriteAllText(In("a/file"), "text");
        HostCommand.Run("ln", In("a/file"), In("b/file"));
    }

    private static void GiveMountsOtherNumbers(byte[] state, ulong root, ulong files)
    {
        const int rootMount = 56, mountInSlot = 40;
        BitConverter.TryWriteBytes(state.AsSpan(rootMount), U64(state, rootMount) + root);
        for (int at = SessionTable.HeaderRoom + mountInSlot; at < state.Length; at += SessionTable.SlotSize)
            BitConverter.TryWriteBytes(state.AsSpan(at), U64(state, at) + files);
    }

    private static FrontEndDriver Connect(Server server)
    {
        var frontEnd = FrontEndDriver.ConnectedTo(server);
        frontEnd.Negotiate(protocolFeatures: VhostUserProtocolFeatures.InflightShmFd);
        frontEnd.ShareMemory();
        return frontEnd;
    }

    private VmmProcess Restart(VmmProcess process, FuseGuest guest, int times)
    {
        process.Signal(LibC.SIGKILL);
        process.WaitForEnd();
        process = Serve();
        guest.Peer.WaitUntilRestored(times);
        return process;
    }

    private static byte[] Transfer(ulong handle, uint size) => [.. Bytes(handle, 0UL), .. Bytes(size, 0U), .. Bytes(0UL), .. Bytes(0U, 0U)];

    // In this process, without extended attributes, which need one of their own.
    private sealed class Server : VhostUserDevice, IDisposable
    {
        private const int Room = 4096;

        private readonly RequestPool _pool;
        private readonly DeviceRing _ring;

        private readonly int _keptSize;

        public Server(string directory, bool hasBegun = true, int keptSize = FuseServer.KeptSize)
        {
            _keptSize = keptSize;
            Fuse = new FuseServer(new FileSystemOptions { Directory = directory, Xattr = false, PoolSize = 0 });
            _pool = new RequestPool(Fuse, 0);
            _ring = new DeviceRing(this, 0);
            if (hasBegun)
                Begin();
        }

        public FuseServer Fuse { get; }

        public override string Name => "fs";

        public override ulong Features => 0;

        public override int RingCount => 2;

        // As FileSystemBackend has them.
        public override int KeptMemorySize => _keptSize;

        public override void MemoryKept(KeptMemory? memory) => Fuse.Keep(memory);

        public override void FrontEndGone() => Fuse.Reset();

        public override IRingHandler StartRing(BackendRing ring) => new FileSystemRing(Fuse, _pool, 2);

        public static byte[] Request(uint code, ulong node, byte[] arguments, ulong unique = 1) =>
            [.. Bytes((uint)(40 + arguments.Length), code), .. Bytes(unique, node), .. Bytes(0U, 0U, 0U, 0U), .. arguments];

        public void Begin() => Demand(26, 0, [.. Bytes(7U, 39U, 0U, 0U), .. new byte[48]]);

        public int Try(uint code, ulong node, byte[] arguments) => MemoryMarshal.Read<int>(Ask(code, node, arguments).AsSpan(4));

        public byte[] Demand(uint code, ulong node, byte[] arguments)
        {
            byte[] reply = Ask(code, node, arguments);
            Assert.That(MemoryMarshal.Read<int>(reply.AsSpan(4)), Is.Zero, $"request {code}");
            return reply[16..];
        }

        // There is no reply.
        public void Forget(ulong node, ulong lookups = 1) => Ask(2, node, Bytes(lookups));

        public void Dispose()
        {
            _ring.Dispose();
            _pool.Dispose();
            Fuse.Dispose();
        }

        public byte[] Ask(byte[] request)
        {
            _ring.Add(request, [40], Room);
            return _ring.Await();
        }

        private byte[] Ask(uint code, ulong node, byte[] arguments) => Ask(Request(code, node, arguments));
    }
}
