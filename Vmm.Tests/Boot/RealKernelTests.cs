using NUnit.Framework;
using Vmm.Boot;
using Vmm.Vhost.Memory;

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
        Guest.Load(memory, new KernelOptions { KernelPath = path, Entry = entry });

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
