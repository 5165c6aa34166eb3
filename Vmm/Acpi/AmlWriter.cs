namespace Vmm.Acpi;

/// <summary>Writes AML, the byte code of a DSDT, into <paramref name="table"/>: as much of it as our DSDT needs (ACPI 6.5 §20.2).
/// Blocks are open until they are disposed of, so that the code is nested as the AML is.</summary>
internal sealed partial class AmlWriter(TableBuffer table)
{
    private const byte NameOp = 0x08;
    private const byte StringPrefix = 0x0D;
    private const byte ScopeOp = 0x10;
    private const byte BufferOp = 0x11;
    private const byte PackageOp = 0x12;
    private const byte MethodOp = 0x14;
    private const byte NotifyOp = 0x86;
    private const byte Serialized = 1 << 3;
    private const byte ExtensionPrefix = 0x5B;
    private const byte DeviceOp = 0x82;

    /// <summary>Opens the scope <paramref name="path"/>, which exists already.</summary>
    public Block Scope(string path)
    {
        table.Byte(ScopeOp);
        var block = new Block(this, table.Length);
        NameString.Write(table, path);
        return block;
    }

    /// <summary>Opens the new device <paramref name="path"/>.</summary>
    public Block Device(string path)
    {
        table.Byte(ExtensionPrefix);
        table.Byte(DeviceOp);
        var block = new Block(this, table.Length);
        NameString.Write(table, path);
        return block;
    }

    /// <summary>Opens the new method <paramref name="path"/>.</summary>
    /// <param name="path">Its name.</param>
    /// <param name="arguments">How many arguments it takes, 0 to 7; it runs once at a time.</param>
    public Block Method(string path, byte arguments)
    {
        table.Byte(MethodOp);
        var block = new Block(this, table.Length);
        NameString.Write(table, path);
        table.Byte((byte)(arguments | Serialized));
        return block;
    }

    /// <summary>Tells the operating system that <paramref name="notification"/> has happened to the device <paramref name="path"/> (ACPI 6.5 §5.6.6).</summary>
    public void Notify(string path, byte notification)
    {
        table.Byte(NotifyOp);
        NameString.Write(table, path);
        Integer(notification);
    }

    /// <summary>Opens a package of <paramref name="elements"/> data objects, which are written next.</summary>
    public Block Package(byte elements)
    {
        table.Byte(PackageOp);
        var block = new Block(this, table.Length);
        table.Byte(elements);
        return block;
    }

    /// <summary>Begins the named object <paramref name="path"/>; what is written next is its value.</summary>
    public AmlWriter Name(string path)
    {
        table.Byte(NameOp);
        NameString.Write(table, path);
        return this;
    }

    /// <summary>Writes an integer, in its shortest form.</summary>
    public void Integer(ulong value)
    {
        Span<byte> integer = stackalloc byte[AmlInteger.MaxSize];
        table.Bytes(integer[..AmlInteger.Encode(integer, value)]);
    }

    /// <summary>Writes a string of ASCII characters, none of them NUL.</summary>
    public void String(string text)
    {
        if (text.AsSpan().ContainsAnyExceptInRange('\x01', '\x7F'))
            throw new ArgumentException($"'{text}' is not an ACPI string", nameof(text));
        table.Byte(StringPrefix);
        table.Ascii(text, text.Length + 1);
    }

    /// <summary>Writes the compressed form of an id such as PNP0501.</summary>
    public void EisaId(string id) => Integer(Acpi.EisaId.Compress(id));

    private void Close(int start)
    {
        Span<byte> length = stackalloc byte[PkgLength.MaxSize];
        int size = PkgLength.Encode(length, table.Length - start);
        table.Insert(start, length[..size]);
    }

    /// <summary>An open block; disposing of it puts its length before what was written since.</summary>
    public readonly struct Block(AmlWriter writer, int start) : IDisposable
    {
        /// <inheritdoc/>
        public void Dispose() => writer.Close(start);
    }
}
