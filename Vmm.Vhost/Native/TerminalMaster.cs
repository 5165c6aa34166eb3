using System.Globalization;
using System.Runtime.InteropServices;

namespace Vmm.Vhost.Native;

/// <summary>The keyboard's and screen's side of a new pseudo-terminal (pty(7)). Whoever wants to use it opens <see cref="Path"/>.
/// Non-blocking, close-on-exec.</summary>
public sealed unsafe partial class TerminalMaster : FileDescriptor
{
    private const int Flags = 0x80902;   // O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC

    /// <summary>The request by which <see cref="Size"/> is found out.</summary>
    public static readonly IoctlRequest SizeRequest = new(0x5413, "TIOCGWINSZ");

    private static readonly IoctlRequest s_unlock = new(0x40045431, "TIOCSPTLCK");
    private static readonly IoctlRequest s_number = new(0x80045430, "TIOCGPTN");

    private FileDescriptor? _terminal;

    private TerminalMaster(int fd)
        : base(fd) => Path = "";

    /// <summary>The terminal's device, such as <c>/dev/pts/3</c>.</summary>
    public string Path { get; private set; }

    /// <summary>Makes a pseudo-terminal in raw mode: what goes in on either side comes out on the other as it is.</summary>
    /// <exception cref="ErrnoException">There is none to be had.</exception>
    public static TerminalMaster Open()
    {
        int number;
        fixed (byte* name = NullTerminated("/dev/ptmx"))
        {
            // SAFETY: null-terminated and pinned.
            number = SystemOpen(name, Flags);
        }
        if (number < 0)
            throw new ErrnoException("cannot open /dev/ptmx", Marshal.GetLastPInvokeError());
        var terminal = new TerminalMaster(number);
        try
        {
            int unlocked = 0, index = 0;
            Ioctl.Call(terminal, s_unlock, ref unlocked);
            Ioctl.Call(terminal, s_number, ref index);
            terminal.Path = string.Create(CultureInfo.InvariantCulture, $"/dev/pts/{index}");
            // Kept open: else reading here is an error, and the settings are lost, whenever nobody has it open.
            terminal._terminal = FileDescriptor.Open(terminal.Path, OpenMode.ReadWrite);
            Terminal.TryOpen(terminal._terminal)!.SetRaw(keepsOutput: false);   // its user's output is the guest's input
            return terminal;
        }
        catch
        {
            terminal.Dispose();
            throw;
        }
    }

    /// <summary>Whether <paramref name="descriptor"/> is a pseudo-terminal's master, also one that somebody else has made.</summary>
    public static bool Is(FileDescriptor descriptor)
    {
        int number = 0;
        // SAFETY: TIOCGPTN fills one int, on the stack.
        return Ioctl.TryCall(descriptor, s_number, (nuint)(&number)) >= 0;
    }

    /// <summary>The size that its user has given it, in characters; zeros where it was given none.</summary>
    public (ushort Columns, ushort Rows) Size
    {
        get
        {
            WindowSize size = default;
            // SAFETY: TIOCGWINSZ fills one struct winsize, on the stack.
            return Ioctl.TryCall(this, SizeRequest, (nuint)(&size)) < 0 ? default : (size.Columns, size.Rows);
        }
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle()
    {
        _terminal?.Dispose();
        return base.ReleaseHandle();
    }

    [LibraryImport("libc", EntryPoint = "open", SetLastError = true)]
    private static partial int SystemOpen(byte* path, int flags);

    private struct WindowSize
    {
        public ushort Rows;
        public ushort Columns;
        public ushort Width;
        public ushort Height;
    }
}
