using Vmm.Vhost.Memory;

namespace Vmm.Boot;

/// <summary>What a range of guest-physical addresses is, in the numbers of the BIOS call int 15h E820h (ACPI 6.5 §15.2).</summary>
internal enum E820Type : uint
{
    /// <summary>RAM for the kernel to use.</summary>
    Usable = 1,

    /// <summary>Not to be used.</summary>
    Reserved = 2,
}

/// <summary>One range of the memory map.</summary>
internal readonly record struct E820Entry(ulong Start, ulong Size, E820Type Type)
{
    /// <summary>The map for this machine: RAM as guest memory has it, with the holes that every PC has below 1 MiB.</summary>
    public static E820Entry[] MapOf(GuestMemory memory)
    {
        var map = new List<E820Entry>(GuestMemory.MaxRegions + 3);
        foreach (ref readonly GuestRegion region in memory.Regions)
        {
            ulong start = region.Start.Value;
            if (start == 0)
            {
                map.Add(new(0, BootLayout.LowMemoryEnd, E820Type.Usable));
                map.Add(new(BootLayout.LowMemoryEnd, BootLayout.VideoMemory - BootLayout.LowMemoryEnd, E820Type.Reserved));
                map.Add(new(AddressMap.AcpiTablesStart, BootLayout.KernelStart - AddressMap.AcpiTablesStart, E820Type.Reserved));
                start = BootLayout.KernelStart;
            }
            map.Add(new(start, region.End.Value - start, E820Type.Usable));
        }
        return map.ToArray();
    }
}
