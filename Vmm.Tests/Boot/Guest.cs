using NUnit.Framework;
using Vmm.Boot;
using Vmm.Vhost.Memory;

namespace Vmm.Tests.Boot;

/// <summary>What the tests of this folder need of a guest.</summary>
internal static class Guest
{
    public static readonly GuestAddress Rsdp = new(AddressMap.AcpiTablesStart);

    public static GuestMemory Memory(ulong mebibytes = 64) => GuestMemory.Create([(new GuestAddress(0), mebibytes << 20)]);

    public static BootEntry Load(GuestMemory memory, TempFile kernel, KernelEntry entry = KernelEntry.Auto, bool guestDecompression = false, string commandLine = "quiet") =>
        Load(memory, new KernelOptions { KernelPath = kernel.Path, CommandLine = commandLine, Entry = entry, GuestDecompression = guestDecompression });

    public static BootEntry Load(GuestMemory memory, KernelOptions options)
    {
        using KernelFiles files = KernelFiles.Open(options);
        return KernelLoader.Load(memory, files, options, Rsdp);
    }

    /// <summary>Compares guest memory with the three segments that <see cref="ElfBuilder"/> makes, and the zeros behind the last.</summary>
    public static void AssertKernelIsPlaced(GuestMemory memory, byte[] elf)
    {
        Assert.Multiple(() =>
        {
            AssertEqual(memory, ElfBuilder.Text, elf.AsSpan(ElfBuilder.TextOffset, ElfBuilder.TextSize), "text");
            AssertEqual(memory, ElfBuilder.Data, elf.AsSpan(ElfBuilder.DataOffset, ElfBuilder.DataSize), "data");
            AssertEqual(memory, ElfBuilder.Init, elf.AsSpan(ElfBuilder.InitOffset, ElfBuilder.InitSize), "init");
            AssertEqual(
                memory, ElfBuilder.Init + ElfBuilder.InitSize, new byte[ElfBuilder.InitMemory - ElfBuilder.InitSize], "zeros behind init");
        });
    }

    public static void AssertEqual(GuestMemory memory, ulong address, ReadOnlySpan<byte> expected, string what)
    {
        int same = memory.Slice(new(address), expected.Length).CommonPrefixLength(expected);
        Assert.That(same, Is.EqualTo(expected.Length), $"{what}: differs from byte 0x{same:x} on");
    }
}
