using System.Runtime.InteropServices;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Tests.Fuzz;

/// <summary>Memory that looks like rings and tables, more or less.</summary>
internal static class FuzzRings
{
    /// <summary>Descriptors everywhere, with small indices between them, such as any ring may be looked for in.</summary>
    /// <param name="random">What decides.</param>
    /// <param name="memory">What is filled.</param>
    /// <param name="memorySize">How much memory the guest has, from 1 MiB on.</param>
    public static void Fill(Random random, Span<byte> memory, int memorySize)
    {
        Span<ulong> words = MemoryMarshal.Cast<byte, ulong>(memory);
        for (int i = 0; i + 1 < words.Length; i += 2)
        {
            if (random.Next(8) == 0)
            {
                words[i] = (ulong)random.NextInt64();
                words[i + 1] = (ulong)random.NextInt64();
                continue;
            }
            ulong address = 0x100000UL + (ulong)random.Next(memorySize);
            uint length = (uint)(random.Next(4) == 0 ? random.Next(0, 64) * 16 : random.Next(0, 300));
            // Split: flags, then next. Packed: id, then flags. Values that are good for both are few.
            ushort third = (ushort)(random.Next(4) == 0 ? random.Next(0x10000) : random.Next(8));
            ushort fourth = (ushort)(random.Next(2) == 0 ? random.Next(16) : random.Next(8) | (random.Next(2) == 0 ? 0x80 : 0x8000));
            words[i] = address;
            words[i + 1] = length | (ulong)third << 32 | (ulong)fourth << 48;
        }
    }

    /// <summary>What a driver may well do, in a ring that is full or not.</summary>
    /// <param name="random">What decides.</param>
    /// <param name="memory">The guest's memory.</param>
    /// <param name="area">Where the ring is.</param>
    /// <param name="spare">Where 16 KiB of memory for tables are.</param>
    /// <param name="buffers">Where memory for buffers begins, to the end.</param>
    /// <param name="end">That end.</param>
    /// <param name="size">Descriptors in the ring.</param>
    /// <param name="features">What the driver accepted.</param>
    public static RingLayout Good(
        Random random, GuestAddressSpace memory, ulong area, ulong spare, ulong buffers, ulong end, int size, ulong features)
    {
        DriverQueue driver = DriverQueue.Create(memory, area, size, features);
        for (int i = random.Next(size + 1); i > 0 && driver.Free > 0; i--)
        {
            var request = new (ulong, uint, bool)[random.Next(1, Math.Min(driver.Free, 4) + 1)];
            for (int k = 0; k < request.Length; k++)
                request[k] = (buffers + (ulong)random.NextInt64((long)(end - buffers)), (uint)random.Next(600), k > 0);
            bool isIndirect = (features & VirtioFeatures.IndirectDescriptors) != 0 && random.Next(2) == 0;
            driver.Add(request, isIndirect ? spare + (ulong)random.Next(0x3F0) * 16 : 0);
        }
        return driver.Layout;
    }

    /// <summary>Changes some values.</summary>
    public static void Scribble(Random random, Span<byte> memory, int count)
    {
        for (int i = 0; i < count; i++)
        {
            int at = random.Next(memory.Length);
            if (random.Next(2) == 0)
                memory[at] = (byte)random.Next(256);
            else if (memory.Length >= 2)
                MemoryMarshal.Write(memory[(Math.Min(at, memory.Length - 2) & ~1)..], (ushort)random.Next(20));
        }
    }
}
