using NUnit.Framework;
using Vmm.Boot;
using Vmm.Vhost.Memory;

namespace Vmm.Tests.Boot;

public class InitramfsTests
{
    private const ulong MiB = 1 << 20;
    private const ulong GiB = 1 << 30;
    private const ushort Kernel64 = 1;
    private const ushort Above4G = 2;

    // A kernel of 32 MiB; sizes in MiB. initrd_addr_max is 0x7FFFFFFF, as Linux has it.
    [TestCase(100, 512, 0, Kernel64, BootMode.Long64, 412 * MiB)]
    [TestCase(1536, 3072, 0, Kernel64, BootMode.Long64, 512 * MiB)]
    [TestCase(1536, 3072, 0, Kernel64, BootMode.Pvh32, 512 * MiB)]
    [TestCase(2560, 3072, 8192, Kernel64 | Above4G, BootMode.Long64, 512 * MiB)]
    [TestCase(3072, 3072, 8192, Kernel64 | Above4G, BootMode.Long64, 9 * GiB)]
    [TestCase(6144, 3072, 6144, Kernel64 | Above4G, BootMode.Long64, 4 * GiB)]
    public void Place_Size_IsAsHighAsTheKernelTakesIt(int size, int low, int high, int flags, object mode, ulong expected) =>
        Assert.That(Place(size, low, high, flags, (BootMode)mode), Is.EqualTo(expected));

    [TestCase(100, 64, 0, Kernel64 | Above4G, BootMode.Long64, "needs at least 132 MiB of guest memory, but the guest has 64 MiB: raise --memory")]
    [TestCase(3072, 3072, 1024, Kernel64 | Above4G, BootMode.Long64, "its 3072 MiB need at least 6144 MiB of guest memory, as they do not fit below 3 GiB behind the kernel, but the guest has 4096 MiB: raise --memory")]
    [TestCase(2560, 3072, 8192, Kernel64, BootMode.Long64, "0x7fffffff, the last address where this kernel takes it (initrd_addr_max; xloadflags has no XLF_CAN_BE_LOADED_ABOVE_4G): give a smaller initramfs, or a newer kernel")]
    [TestCase(2560, 3072, 8192, Kernel64 | Above4G, BootMode.Pvh32, "0x7fffffff, the last address where this kernel takes it by its PVH entry: give a smaller initramfs, or a bzImage of the kernel")]
    public void Place_NoRoom_SaysTheLimit(int size, int low, int high, int flags, object mode, string expected) =>
        Assert.That(() => Place(size, low, high, flags, (BootMode)mode), Throws.TypeOf<VmmException>().With.Message.Contains(expected));

    [Test]
    public void Load_NoRoomBelow4GiB_IsReadAboveAndBootParamsSaysSo()
    {
        using var kernel = new TempFile(new ElfBuilder { Notes = null }.Build());
        using var initramfs = new TempFile([]);
        using (FileStream file = File.OpenWrite(initramfs.Path))
        {
            file.Position = (long)(50 * MiB) - 3;
            file.Write("end"u8);
        }
        using GuestMemory memory = GuestMemory.Create([(new(0), 64 * MiB), (new(4 * GiB), 64 * MiB)]);

        Guest.Load(memory, new KernelOptions { KernelPath = kernel.Path, InitramfsPath = initramfs.Path });

        ulong place = memory.Read<uint>(new(BootLayout.BootParams + 0x218)) | (ulong)memory.Read<uint>(new(BootLayout.BootParams + 0x0C0)) << 32;
        Assert.That(place, Is.EqualTo(4 * GiB + 14 * MiB), "ramdisk_image, ext_ramdisk_image");
        Assert.That(memory.Read<uint>(new(BootLayout.BootParams + 0x21C)), Is.EqualTo(50 * MiB), "ramdisk_size");
        Guest.AssertEqual(memory, place + 50 * MiB - 3, "end"u8, "the last bytes");
    }

    // Offsets do not fit an int.
    [Test]
    public void Open_InitramfsOf3GiB_IsNotRefused()
    {
        using var initramfs = new TempFile([]);
        using (FileStream file = File.OpenWrite(initramfs.Path))
            file.SetLength((long)(3 * GiB));
        using ImageFile image = ImageFile.OpenInitramfs(initramfs.Path);

        Assert.That(image.Size, Is.EqualTo(3 * GiB));
        Span<byte> last = stackalloc byte[8];
        Assert.That(image.Read(last, 3 * GiB - 4), Is.EqualTo(4));
    }

    private static ulong Place(int size, int low, int high, int flags, BootMode mode)
    {
        byte[] image = new BzImageBuilder { Payload = new byte[100], ExtendedLoadFlags = (ushort)flags }.Build();
        using var file = new TempFile(image);
        using ImageFile kernel = ImageFile.OpenKernel(file.Path);
        var loaded = new LoadedKernel(mode, 16 * MiB, 32 * MiB, SetupHeader.Read(kernel, image));
        return Initramfs.Place(kernel, (ulong)size * MiB, loaded, (ulong)low * MiB, (ulong)high * MiB);
    }
}
