using System.Buffers.Binary;
using FsCheck;
using FsCheck.Fluent;
using NUnit.Framework;
using Vmm.Devices.Bus;
using Vmm.Devices.Platform;
using Vmm.Tests.Fakes;

namespace Vmm.Tests.Devices.Platform;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public class IoApicTests
{
    private const int Select = 0x00;
    private const int Window = 0x10;
    private const int FirstEntry = 0x10;
    private const int Inputs = 24;
    private const uint Masked = 1 << 16;

    private readonly FakeInterruptRoutes _routes = new();
    private readonly IoApic _ioApic;

    public IoApicTests() => _ioApic = new IoApic(Inputs, _routes);

    [Test]
    public void Registers_AfterReset_AreThoseOfAChipWithAllInputsMasked()
    {
        Assert.That(Register(0x00), Is.Zero, "ID");
        Assert.That(Register(0x01), Is.EqualTo(0x0017_0011), "version");
        Assert.That(Register(0x02), Is.Zero, "arbitration");
        for (int input = 0; input < Inputs; input++)
            Assert.That(Entry(input), Is.EqualTo(Masked), $"input {input}");
        for (int register = 0x03; register < FirstEntry; register++)
            Assert.That(Register((byte)register), Is.Zero, $"register {register}");
        for (int register = FirstEntry + 2 * Inputs; register <= byte.MaxValue; register++)
            Assert.That(Register((byte)register), Is.Zero, $"register {register}");
        Assert.That(_routes.Calls, Is.Zero);
    }

    [TestCase(1, 0x0000_0011u)]
    [TestCase(9, 0x0008_0011u)]
    [TestCase(120, 0x0077_0011u)]
    public void Registers_SomeInputs_AreAsMany(int inputs, uint version)
    {
        var ioApic = new IoApic(inputs, _routes);
        Assert.That(Register(ioApic, 0x01), Is.EqualTo(version));
        int entries = 0;
        for (int register = FirstEntry; register <= byte.MaxValue; register += 2)
            entries += Register(ioApic, (byte)register) == Masked ? 1 : 0;
        Assert.That(entries, Is.EqualTo(inputs));
    }

    [Test]
    public void Write_AllOnes_SetsOnlyWhatCanBeWritten()
    {
        for (int register = 0; register <= byte.MaxValue; register++)
            SetRegister((byte)register, uint.MaxValue);

        Assert.That(Register(0x00), Is.EqualTo(0x0F00_0000), "ID");
        Assert.That(Register(0x01), Is.EqualTo(0x0017_0011), "version");
        Assert.That(Register(0x02), Is.EqualTo(0x0F00_0000), "arbitration");
        for (int input = 0; input < Inputs; input++)
            Assert.That(Entry(input), Is.EqualTo(0xFFFE_0000_0001_AFFF), $"input {input}");
        Assert.That(_routes.Calls, Is.Zero, "all are masked");
    }

    // Intel 82093AA, 3.2.4; Intel SDM vol. 3A, 11.11; KVM's cpuid.rst, KVM_FEATURE_MSI_EXT_DEST_ID.
    [TestCase(0x0000_0000_0000_0031u, 0xFEE0_0000u, 0x4031u, Description = "fixed, edge, to APIC id 0")]
    [TestCase(0x0300_0000_0000_0031u, 0xFEE0_3000u, 0x4031u, Description = "to APIC id 3")]
    [TestCase(0xFF00_0000_0000_00FEu, 0xFEEF_F000u, 0x40FEu, Description = "to all")]
    [TestCase(0x2B02_0000_0000_0031u, 0x0000_0100_FEE2_B000u, 0x4031u, Description = "to APIC id 299, which has more than 8 bits")]
    [TestCase(0xFFFE_0000_0000_0031u, 0x0000_7F00_FEEF_F000u, 0x4031u, Description = "to the highest APIC id")]
    [TestCase(0x0300_0000_0000_0931u, 0xFEE0_3004u, 0x4131u, Description = "lowest priority, to a logical destination")]
    [TestCase(0x0000_0000_0000_A031u, 0xFEE0_0000u, 0xC031u, Description = "active low, level")]
    [TestCase(0x0000_0000_0000_0400u, 0xFEE0_0000u, 0x4400u, Description = "NMI")]
    public void Entry_Unmasked_SendsItsMessage(ulong entry, ulong address, uint data)
    {
        SetEntry(5, entry);

        Assert.That(_routes.Messages, Is.EquivalentTo(new Dictionary<int, InterruptMessage> { [5] = new(address, data) }));
        Assert.That(Entry(5), Is.EqualTo(entry));
    }

    [Test]
    public void Entry_MaskedAndUnmasked_SendsNothingMeanwhile()
    {
        SetEntry(8, 0x0200_0000_0000_0031);
        SetRegister(FirstEntry + 2 * 8, Masked | 0x31);
        Assert.That(_routes.Messages, Is.Empty);

        SetRegister(FirstEntry + 2 * 8, 0x31);
        Assert.That(_routes.Messages, Is.EquivalentTo(new Dictionary<int, InterruptMessage> { [8] = new(0xFEE0_2000, 0x4031) }));
    }

    [Test]
    public void Entry_NothingChangesForItsInput_TellsNobody()
    {
        SetEntry(0, 0x0200_0000_0001_0031);   // still masked
        SetEntry(1, 0x31);
        int calls = _routes.Calls;

        SetEntry(1, 0x31);
        SetEntry(1, 0x2031);                  // another polarity: not in a message

        Assert.That(calls, Is.EqualTo(1));
        Assert.That(_routes.Calls, Is.EqualTo(calls));
    }

    [Test]
    public void Reset_Unmasked_MasksWithoutTelling()
    {
        SetEntry(23, 0x31);
        SetRegister(0x00, uint.MaxValue);
        int calls = _routes.Calls;

        _ioApic.Reset();

        Assert.That(Value(Select, 4), Is.Zero);
        Assert.That(Entry(23), Is.EqualTo(Masked));
        Assert.That(Register(0x00), Is.Zero);
        Assert.That(_routes.Calls, Is.EqualTo(calls));
    }

    [TestCase(1, 0x12u)]
    [TestCase(2, 0x0112u)]
    [TestCase(4, 0x0001_0112u)]
    [TestCase(8, 0x0001_0112u)]
    public void Access_AnyWidth_IsOfTheRegistersFirstBytes(int width, uint expected)
    {
        Write(Select, 0x1111_1110, width);
        Assert.That(Value(Select, 8), Is.EqualTo(0x10));
        SetRegister(FirstEntry, 0x300 | Masked);
        Write(Select, FirstEntry, 4);

        Write(Window, 0x5555_5555_0001_0112, width);

        Assert.That(Register(FirstEntry), Is.EqualTo(expected));
        ulong mask = width == 8 ? ulong.MaxValue : (1UL << (8 * width)) - 1;
        Assert.That(Value(Window, width), Is.EqualTo(expected & mask));
    }

    [Test]
    public void Access_AnyOtherOffset_DoesNothingAndReads0()
    {
        SetEntry(0, 0x31);
        Write(Select, FirstEntry, 4);
        for (int offset = 0; offset < IoApic.Size; offset++)
        {
            if (offset is Select or Window)
                continue;
            for (int width = 1; width <= 8; width++)
            {
                Write(offset, ulong.MaxValue, width);
                Assert.That(Value(offset, width), Is.Zero, $"{width} bytes at {offset}");
            }
        }
        Assert.That(Value(Select, 4), Is.EqualTo(FirstEntry));
        Assert.That(Entry(0), Is.EqualTo(0x31));
        Assert.That(_routes.Calls, Is.EqualTo(1));
    }

    [Test]
    public void Write_AnyProgram_RoutesWhatTheEntriesSay()
    {
        Gen<(byte Register, uint Value)> write =
            from register in Gen.Choose(0, FirstEntry + 2 * Inputs + 1)
            from value in Gen.OneOf(Gen.Choose(int.MinValue, int.MaxValue), Gen.Choose(0, 0xFFFF))
            select ((byte)register, (uint)value);
        int routed = 0;
        Prop.ForAll(write.ArrayOf().ToArbitrary(), program =>
        {
            var routes = new FakeInterruptRoutes();
            var ioApic = new IoApic(Inputs, routes);
            var model = new ulong[Inputs];
            Array.Fill(model, Masked);
            foreach ((byte register, uint value) in program)
            {
                Write(ioApic, Select, register, 4);
                Write(ioApic, Window, value, 4);
                int half = register - FirstEntry;
                if (half is >= 0 and < 2 * Inputs)
                {
                    int shift = half % 2 * 32;
                    model[half / 2] = (model[half / 2] & ~(0xFFFF_FFFFUL << shift)) | ((ulong)value << shift);
                }
            }
            Dictionary<int, InterruptMessage> expected = [];
            for (int input = 0; input < Inputs; input++)
            {
                ulong entry = model[input];
                if ((entry & Masked) != 0)
                    continue;
                ulong vector = entry & 0xFF, mode = (entry >> 8) & 7, logical = (entry >> 11) & 1, level = (entry >> 15) & 1;
                ulong destination = entry >> 56, upperDestination = (entry >> 49) & 0x7F;
                expected[input] = new InterruptMessage(
                    (upperDestination << 40) + 0xFEE0_0000 + destination * 0x1000 + logical * 4,
                    (uint)(level * 0x8000 + 0x4000 + mode * 0x100 + vector));
            }
            routed += expected.Count;
            Assert.That(routes.Messages, Is.EquivalentTo(expected));
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(500));

        // Else the programs would show nothing.
        Assert.That(routed, Is.GreaterThan(1000));
    }

    private static void Write(IoApic ioApic, int offset, ulong value, int width)
    {
        Span<byte> data = stackalloc byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(data, value);
        ioApic.Write((ulong)offset, data[..width]);
    }

    private static ulong Value(IoApic ioApic, int offset, int width)
    {
        Span<byte> data = stackalloc byte[8];
        data.Clear();
        data[..width].Fill(0x5A);
        ioApic.Read((ulong)offset, data[..width]);
        return BinaryPrimitives.ReadUInt64LittleEndian(data);
    }

    private static uint Register(IoApic ioApic, byte register)
    {
        Write(ioApic, Select, register, 4);
        return (uint)Value(ioApic, Window, 4);
    }

    private void Write(int offset, ulong value, int width) => Write(_ioApic, offset, value, width);

    private ulong Value(int offset, int width) => Value(_ioApic, offset, width);

    private uint Register(byte register) => Register(_ioApic, register);

    private void SetRegister(byte register, uint value)
    {
        Write(Select, register, 4);
        Write(Window, value, 4);
    }

    private ulong Entry(int input) =>
        Register((byte)(FirstEntry + 2 * input)) | (ulong)Register((byte)(FirstEntry + 2 * input + 1)) << 32;

    // As drivers do: what the interrupt is for first, and at last that it may come.
    private void SetEntry(int input, ulong entry)
    {
        SetRegister((byte)(FirstEntry + 2 * input + 1), (uint)(entry >> 32));
        SetRegister((byte)(FirstEntry + 2 * input), (uint)entry);
    }
}
