using System.Buffers.Binary;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.Confinement;
using Vmm.Vhost.User.Backend;

namespace Vmm.Devices.Backends.Console;

/// <summary>A console with one port (VIRTIO 1.2 §5.3), on a pseudo-terminal or into a file.</summary>
public sealed class ConsoleBackend : VhostUserDevice, IDisposable
{
    /// <summary>The system calls that one on a pseudo-terminal makes while it is served, besides those of every back-end.</summary>
    public static readonly IReadOnlyList<SystemCallRule> TerminalCalls = [SystemCallRule.Requests(TerminalMaster.SizeRequest)];

    /// <summary>How much of what nobody reads a terminal keeps where nothing is said, and the most that it can, in bytes.</summary>
    public const int DefaultKept = 64 << 10, MostKept = 64 << 20;

    private const ulong SizeFeature = 1UL << 0;     // VIRTIO_CONSOLE_F_SIZE
    private const int ReceiveQueue = 0;

    private readonly FileDescriptor _output;
    private readonly TerminalMaster? _terminal;
    private readonly ByteQueue _kept;
    private (ushort Columns, ushort Rows) _size;
    private ConsoleReceiveRing? _receiveRing;

    private ConsoleBackend(FileDescriptor output, string path, int kept = DefaultKept)
    {
        _kept = new ByteQueue(kept);
        _output = output;
        _terminal = output as TerminalMaster;
        Path = path;
        _size = _terminal?.Size ?? default;
    }

    /// <summary>The terminal's device, or the file.</summary>
    public string Path { get; }

    /// <inheritdoc/>
    public override string Name => "console";

    /// <inheritdoc/>
    public override ulong Features => _terminal is null ? 0 : SizeFeature;

    /// <inheritdoc/>
    public override int RingCount => 2;

    /// <inheritdoc/>
    public override int ConfigSize => 12;

    /// <inheritdoc/>
    public override bool IsInOrder => true;

    /// <summary>A console on a pseudo-terminal that is made for it.</summary>
    /// <param name="kept">How many bytes of what nobody reads are kept, the latest; a power of two from 4096 to <see cref="MostKept"/>.</param>
    /// <exception cref="ErrnoException">There is none to be had.</exception>
    public static ConsoleBackend OnTerminal(int kept = DefaultKept)
    {
        TerminalMaster terminal = TerminalMaster.Open();
        return new ConsoleBackend(terminal, terminal.Path, kept);
    }

    /// <summary>A console whose output goes to a file, and that has no input. The file is made if it is not there, and the output is added at its
    /// end. It may be a FIFO or a terminal: what nobody reads there is kept, up to <see cref="DefaultKept"/>.</summary>
    /// <exception cref="ErrnoException">It cannot be opened.</exception>
    public static ConsoleBackend IntoFile(string path)
    {
        FileDescriptor output = FileDescriptor.Open(path, OpenMode.CreateAppend);
        try
        {
            // A FIFO or a terminal that is full would block the ring's thread, and with it all that the front-end says of the ring.
            output.SetNonBlocking();
            return new ConsoleBackend(output, path);
        }
        catch
        {
            output.Dispose();
            throw;
        }
    }

    /// <summary>Empties the file that the output goes to.</summary>
    /// <exception cref="ErrnoException">The kernel refused that.</exception>
    public void Empty() => _output.Empty(Path);

    /// <inheritdoc/>
    public override void ReadConfig(Span<byte> config)
    {
        // struct virtio_console_config: cols, rows, max_nr_ports, emerg_wr.
        BinaryPrimitives.WriteUInt16LittleEndian(config, _size.Columns);
        BinaryPrimitives.WriteUInt16LittleEndian(config[2..], _size.Rows);
        BinaryPrimitives.WriteUInt32LittleEndian(config[4..], 1);
    }

    /// <inheritdoc/>
    public override IRingHandler StartRing(BackendRing ring)
    {
        if (ring.Index != ReceiveQueue)
            return new ConsoleTransmitRing(_output, Path, _kept);
        // The same again: it may have read what the guest had no buffer for.
        return _terminal is null ? IdleRing.Instance : _receiveRing ??= new ConsoleReceiveRing(_terminal, UpdateSize);
    }

    /// <inheritdoc/>
    public void Dispose() => _output.Dispose();

    // The user may have changed the size of the terminal. The kernel tells that to the program on the terminal, not to us: so we look
    // when the user types something.
    private void UpdateSize()
    {
        (ushort, ushort) size = _terminal!.Size;
        if (size == _size)
            return;
        _size = size;
        try
        {
            FrontEnd?.ConfigurationChanged();
        }
        catch (Vmm.Vhost.VhostException)
        {
            // It has gone; the next one reads the size anyhow.
        }
    }
}
