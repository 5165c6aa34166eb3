using System.Runtime.InteropServices;
using NUnit.Framework;
using Vmm.Boot;
using Vmm.Boot.Cache;
using Vmm.Tests.Boot.Cache;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Boot;

/// <summary>Debian's kernels, unpacked under artifacts/kernels: what the bzImage unpacks to must be what its vmlinux holds.</summary>
[Category("Kernel")]
public sealed class RealKernelTests
{
    [TestCase("cloud")]
    [TestCase("generic")]
    public void Load_BzImage_PlacesTheSameAsItsVmlinux(string flavour)
    {
        string bzImage = Find(flavour, "vmlinuz");
        string vmlinux = Find(flavour, "vmlinux");
        using GuestMemory unpacked = Guest.Memory(256);
        using GuestMemory read = Guest.Memory(256);

        BootEntry entry = Load(unpacked, bzImage);
        BootEntry expected = Load(read, vmlinux);

        Assert.That(entry, Is.EqualTo(expected));
        using ImageFile file = ImageFile.OpenKernel(vmlinux);
        byte[] head = new byte[ElfKernel.HeadSize];
        file.ReadExactly(head, 0);
        foreach (ElfSegment segment in ElfKernel.Parse(file, head, file.Length).Segments)
            Guest.AssertEqual(unpacked, segment.Address, read.Slice(new(segment.Address), (int)segment.MemorySize), $"0x{segment.Address:x}");
    }

    // Every place of the list has moved by the same, every other byte is as it was linked, and each boot is another one.
    [TestCase("cloud")]
    [TestCase("generic")]
    public void Load_BzImageWithoutNokaslr_IsRelocatedAsAWhole(string flavour)
    {
        string vmlinux = Find(flavour, "vmlinux");
        byte[] payload = File.ReadAllBytes(vmlinux);
        using GuestMemory linked = Guest.Memory(256);
        BootEntry linkedEntry = Load(linked, vmlinux);
        using ImageFile file = ImageFile.OpenKernel(vmlinux);
        ElfKernel elf = ElfKernel.Parse(file, payload.AsSpan(0, ElfKernel.HeadSize), payload.Length);
        uint[] words = MemoryMarshal.Cast<byte, uint>(payload.AsSpan(elf.FileEnd!.Value)).ToArray();
        var seen = new HashSet<(ulong, ulong)>();
        for (int boot = 0; boot < 3; boot++)
        {
            using GuestMemory moved = Guest.Memory(512);
            BootEntry entry = Guest.Load(moved, new KernelOptions { KernelPath = Find(flavour, "vmlinuz") });
            ulong physical = entry.InstructionPointer - linkedEntry.InstructionPointer;
            uint first = words[^1];
            uint shift = moved.Read<uint>(new(first - 0x8000_0000 + physical)) - linked.Read<uint>(new(first - 0x8000_0000));
            Assert.That(physical % (2 << 20), Is.Zero);
            Assert.That(shift % (2 << 20), Is.Zero);
            Assert.That(shift, Is.LessThan(1 << 30));
            seen.Add((physical, shift));
            MoveBack(moved, words, physical, shift);
            foreach (ElfSegment segment in elf.Segments)
            {
                ReadOnlySpan<byte> expected = linked.Slice(new(segment.Address), (int)segment.MemorySize);
                Guest.AssertEqual(moved, segment.Address + physical, expected, $"0x{segment.Address:x}");
            }
        }
        Assert.That(seen, Has.Count.GreaterThan(1));
    }

    // All of it: segments, what is between them, and the list of relocations.
    [TestCase("cloud")]
    [TestCase("generic")]
    public void Open_KeptKernel_IsItsVmlinux(string flavour)
    {
        string directory = Path.Combine(Path.GetTempPath(), Path.GetRandomFileName());
        PrivateDirectory.Make(directory);
        try
        {
            using ImageFile file = ImageFile.OpenKernel(Find(flavour, "vmlinuz"));
            using CachedPayload? kept = KernelCache.Open(new KernelCacheOptions(directory), file, static action => action(), long.MaxValue);
            Assert.That(kept, Is.Not.Null);
            var sink = new ArraySink(kept!.Length);
            kept.CopyTo(sink);
            Assert.That(sink.Bytes.AsSpan().SequenceEqual(File.ReadAllBytes(Find(flavour, "vmlinux"))), Is.True);
        }
        finally
        {
            Directory.Delete(directory, recursive: true);
        }
    }

    private static void MoveBack(GuestMemory memory, uint[] words, ulong physical, uint shift)
    {
        int list = 0;   // 64-bit places, negated ones, 32-bit ones
        foreach (uint word in words)
        {
            if (word == 0)
            {
                list++;
                continue;
            }
            var place = new GuestAddress(word - 0x8000_0000 + physical);
            if (list == 1)
                memory.Write(place, memory.Read<ulong>(place) - shift);
            else
                memory.Write(place, memory.Read<uint>(place) - (list == 2 ? 0 - shift : shift));
        }
        Assert.That(list, Is.EqualTo(3));
    }

    [TestCase("cloud")]
    [TestCase("generic")]
    public void Load_SmallestGuests_LoadsOrSaysHowMuchMemoryIsNeeded(string flavour)
    {
        string bzImage = Find(flavour, "vmlinuz");
        for (ulong size = 16; size <= 128; size += 16)
        {
            using GuestMemory memory = Guest.Memory(size);
            try
            {
                Load(memory, bzImage);
            }
            catch (VmmException e)
            {
                Assert.That(e.Message, Does.Contain("raise --memory"));
                Assert.That(size, Is.LessThan(128));
            }
        }
    }

    [TestCase("cloud")]
    [TestCase("generic")]
    public void Load_PvhEntryOfBzImage_IsThatOfItsVmlinux(string flavour)
    {
        using GuestMemory memory = Guest.Memory(256);

        BootEntry entry = Load(memory, Find(flavour, "vmlinuz"), KernelEntry.Pvh);

        Assert.That(entry, Is.EqualTo(Load(memory, Find(flavour, "vmlinux"), KernelEntry.Auto)));
        Assert.That(entry.Mode, Is.EqualTo(BootMode.Pvh32));
    }

    private static BootEntry Load(GuestMemory memory, string path, KernelEntry entry = KernelEntry.Linux64) =>
        Guest.Load(memory, new KernelOptions { KernelPath = path, Entry = entry, CommandLine = "nokaslr" });

    private static string Find(string flavour, string name)
    {
        DirectoryInfo? folder = new(TestContext.CurrentContext.TestDirectory);
        while (folder is not null && !File.Exists(Path.Combine(folder.FullName, "Vmm.sln")))
            folder = folder.Parent;
        string path = Path.Combine(folder?.FullName ?? "", "artifacts", "kernels", flavour, name);
        if (!File.Exists(path))
            Assert.Ignore($"artifacts/kernels/{flavour}/{name} is missing");
        return path;
    }
}
