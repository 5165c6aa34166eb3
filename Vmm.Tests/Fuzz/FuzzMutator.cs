namespace Vmm.Tests.Fuzz;

/// <summary>Breaks a session here and there.</summary>
internal static class FuzzMutator
{
    private static readonly ulong[] s_interesting =
    [
        0, 1, 2, 3, 7, 8, 15, 16, 32, 33, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF,
        0x1000, 0x100000, 0x13FFFF, 0x140000, 0x7000_0000_0000, 0x7000_0003_FFF0, 0x7000_0004_0000, 1UL << 63, ulong.MaxValue, ulong.MaxValue - 0xFFF,
    ];

    public static void Mutate(Random random, List<FuzzMessage> session)
    {
        for (int i = random.Next(8); i > 0 && session.Count > 0; i--)
        {
            int at = random.Next(session.Count);
            FuzzMessage message = session[at];
            switch (random.Next(11))
            {
                case 0:
                    session.RemoveAt(at);
                    break;
                case 1:
                    session.Insert(random.Next(session.Count), message);
                    break;
                case 2:
                    (session[at], session[0]) = (session[0], session[at]);
                    break;
                case 3:
                    session.Insert(at, FuzzSessions.Any(random));
                    break;
                case 4:
                    message.Flags = random.Next(3) == 0 ? (uint)random.Next() : 9;
                    break;
                case 5:
                    session[at] = message with { Request = (uint)random.Next(48) };
                    break;
                case 6:
                    session[at] = message with { Descriptors = Descriptors(random, message.Descriptors) };
                    break;
                case 7:
                    session[at] = message with { Payload = Resize(random, message.Payload) };
                    break;
                case 8 when random.Next(4) == 0:
                    message.Lie = random.Next(-8, 9);
                    break;
                case 9:
                    message.Flags = 9;   // wants a reply: then one goes on after a refusal
                    goto default;
                default:
                    session[at] = message with { Payload = Change(random, message.Payload) };
                    break;
            }
        }
        // Most want replies, so that a refusal is not the end.
        if (random.Next(4) != 0)
        {
            foreach (FuzzMessage message in session)
                message.Flags |= 8;
        }
    }

    private static DescriptorKind[] Descriptors(Random random, DescriptorKind[] old)
    {
        DescriptorKind some = (DescriptorKind)random.Next(7);
        return random.Next(4) switch
        {
            0 => [],
            1 => [some],
            2 => [.. old, some],
            _ => [.. Enumerable.Repeat(some, random.Next(2, 34))],
        };
    }

    private static byte[] Resize(Random random, byte[] payload)
    {
        byte[] resized = new byte[random.Next(2) == 0 ? random.Next(0, 80) : random.Next(0, 4200)];
        payload.AsSpan(0, Math.Min(payload.Length, resized.Length)).CopyTo(resized);
        return resized;
    }

    private static byte[] Change(Random random, byte[] payload)
    {
        byte[] changed = [.. payload];
        if (changed.Length == 0)
            return changed;
        if (random.Next(2) == 0)
        {
            changed[random.Next(changed.Length)] = (byte)random.Next(256);
            return changed;
        }
        int size = 1 << random.Next(4);
        if (changed.Length < size)
            return changed;
        int at = random.Next(changed.Length / size) * size;
        BitConverter.GetBytes(s_interesting[random.Next(s_interesting.Length)]).AsSpan(0, size).CopyTo(changed.AsSpan(at));
        return changed;
    }
}
